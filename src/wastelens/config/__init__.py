"""The settings of every step: closed, frozen and typed. Their values are in ``conf/``."""
