"""The tracker that steps write their runs to, and the MLflow behind it."""
