"""Configuration: closed, typed, and with messages that name key, file and fix."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.factories import config

from wastelens.config.base import flatten
from wastelens.config.files import conf_folder, load_config, parse_settings, read_yaml
from wastelens.config.steps import STEP_CONFIGS
from wastelens.errors import ConfigError


def refusal(step="train", settings="", config_file="", **parameters):
    own = {"model": "base"} if step == "train" else {}
    with pytest.raises(ConfigError) as caught:
        load_config(step, parameters={**own, **parameters}, settings=settings, config_file=str(config_file))
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("step", STEP_CONFIGS)
def test_shipped_config_is_whole_and_frozen(step):
    loaded = load_config(step)
    with pytest.raises(ValueError, match="frozen"):
        setattr(loaded, next(iter(type(loaded).model_fields)), None)


def test_later_layers_win_over_earlier_ones(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("seed: 1\nfit: {epochs: 5}\naugment: true\n")
    given = {"seed": "2", "balanced": "", "model": "base"}
    loaded = load_config("train", config_file=str(file), parameters=given, settings="seed=3 fit.batch_size=7")
    assert (loaded.seed, loaded.fit.epochs, loaded.fit.batch_size) == (3, 5, 7)
    assert loaded.augmentation.kind == "policy"
    assert loaded.balanced is True  # an empty parameter says nothing
    assert loaded.fit.patience_epochs == config().fit.patience_epochs


def test_smoke_file_serves_main_and_each_step():
    smoke = str(conf_folder() / "smoke.yaml")
    main = load_config("main", config_file=smoke)
    assert load_config("prepare", config_file=smoke) == main.prepare
    assert load_config("train", config_file=smoke, parameters={"model": "base"}) == main.train
    assert load_config("explain", config_file=smoke) == main.explain
    assert main.explain.photos == yaml.safe_load(Path(smoke).read_text())["explain"]["photos"]
    assert main.prepare.image_side_px == yaml.safe_load(Path(smoke).read_text())["prepare"]["image_side_px"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("prepare.dataset=sample", "prepare.dataset and train.dataset must be the same"),
        ("train.data_folder=elsewhere", "prepare.data_folder and train.data_folder must be the same"),
        ("explain.dataset=sample", "prepare.dataset and explain.dataset must be the same"),
        ("explain.data_folder=elsewhere", "prepare.data_folder and explain.data_folder must be the same"),
        ("train.augment=true", "main trains without and with augmentation"),
        ("train.resume=abc", "resume a run with the entry point train"),
    ],
)
def test_main_refuses_what_contradicts_one_job(settings, words):
    assert words in refusal("main", settings)


@pytest.mark.parametrize("step", ["prepare", "train", "explain"])
def test_seeds_are_those_that_every_library_takes(step):
    assert "'seed'" in refusal(step, "seed=4294967296")
    assert load_config(step, settings="seed=4294967295").seed == 2**32 - 1


def test_main_hands_a_parameter_to_every_step_that_knows_it():
    main = config("main", dataset="sample", seed="7")
    assert main.prepare.dataset == main.train.dataset == main.explain.dataset == "sample"
    assert main.prepare.seed == main.train.seed == main.explain.seed == 7


def test_model_and_policy_files_lie_below_the_other_layers(tmp_path):
    model = tmp_path / "tiny.yaml"
    model.write_text("network: {kind: cnn, widths: [4], hidden: [], dropout: 0.5, pooling: max}\nfit: {epochs: 7}")
    train = config("train", "network.dropout=0.1 augment=true augment_policy=none", model=str(model))
    assert train.fit.epochs == 7
    assert config("train", "fit.epochs=8", model=str(model)).fit.epochs == 8
    assert train.network.widths == (4,)
    assert train.network.dropout == 0.1
    assert train.augmentation.transforms == ()
    assert config("main", f"train.model={model}").train.network.widths == (4,)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ("fit.epoch=3", ["'fit.epoch'", "the parameter 'set'", "Did you mean 'fit.epochs'?"]),
        ("epochs=3", ["'epochs'", "Did you mean 'fine_tune.epochs' or 'fit.epochs'?"]),
        ("sed=3", ["'sed'", "the parameter 'set'", "Did you mean 'seed'?"]),
        ("network.widht=[4]", ["'network.widht'", "Did you mean 'network.widths'?"]),
        ("qqqqq=3", ["'qqqqq'", "Known keys: dataset,"]),
        ("fit={?1}", ["fit.1", "the parameter 'set'"]),
    ],
)
def test_unknown_key_is_named_with_the_nearest(settings, named):
    message = refusal(settings=settings)
    assert message.startswith("Unknown key")
    for words in named:
        assert words in message


def test_unknown_key_in_a_file_names_that_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("fit: {epohcs: 3}\n")
    assert refusal(config_file=file) == f"Unknown key 'fit.epohcs' in {file}. Did you mean 'fit.epochs'?"
    file.write_text("fit: {1: 3}\n")
    assert refusal(config_file=file).startswith(f"Unknown key 'fit.1' in {file}.")
    file.write_text("network: {kind: cnn, widths: [4], hidden: [], dropouts: 0.5, pooling: max}")
    assert refusal(model=str(file)) == f"Unknown key 'network.dropouts' in {file}. Did you mean 'network.dropout'?"


def test_wrong_value_in_a_model_file_names_that_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("network: {kind: cnn, widths: [4], hidden: [], dropout: 1.5, pooling: max}")
    message = refusal(model=str(file))
    assert message.startswith(f"Config key 'network.dropout' in {file}: ")
    file.write_text("network: {kind: cnn, widths: [4], hidden: [], pooling: max}")
    assert refusal(model=str(file)) == f"Config key 'network.dropout' in {file}: field required."


@pytest.mark.parametrize(
    ("step", "settings", "key", "reason"),
    [
        ("train", "fit.epochs=many", "fit.epochs", "integer"),
        ("train", "fit.epochs=0", "fit.epochs", "greater than or equal to 1"),
        ("train", "fit.epochs=2.5", "fit.epochs", "integer"),
        ("train", "fit.epochs=true", "fit.epochs", "cannot be true or false"),
        ("train", "fit=5", "fit", "dictionary"),
        ("train", "fit.steps_per_epoch=0", "fit.steps_per_epoch", "greater than or equal to 1"),
        ("train", "fit.steps_per_epoch=all", "fit.steps_per_epoch", "integer"),
        ("train", "labels_percent=0", "labels_percent", "greater than 0"),
        ("train", "labels_percent=100.5", "labels_percent", "less than or equal to 100"),
        ("train", "loss.kind=focal loss.gamma=.nan", "loss.gamma", "finite"),
        ("train", "loss=5", "loss", "kind must be one of bce, focal, asymmetric"),
        ("train", "schedule.peak=.inf", "schedule.peak", "finite"),
        ("train", "schedule.floor=1", "schedule", "floor 1 is above peak"),
        ("train", "schedule.start=1", "schedule", "start 1 is above peak"),
        ("train", "network=5", "network", "kind must be one of cnn, autoencoder, dbn, objects, probe"),
        ("main", "train=5", "train", "dictionary"),
        ("main", "train=", "train", "dictionary"),
        ("prepare", "fractions.train=0.8", "fractions", "train, val and test add up to 1.1, not to 1"),
        ("prepare", "fractions.val=0", "fractions.val", "greater than 0"),
        ("prepare", "folds=2", "folds", "must be 0 (no cross-validation) or at least 3"),
        ("prepare", "max_copies=some", "max_copies", "integer"),
        ("prepare", "image_side_px=8", "image_side_px", "greater than or equal to 16"),
        ("prepare", "near_duplicate_distance=8", "near_duplicate_distance", "less than or equal to 7"),
        (
            "explain",
            "methods=gradcm",
            "methods",
            "'gradcam', 'gradcam_plus_plus', 'scorecam', 'shap' or 'shap_partition'",
        ),
        ("explain", "methods=[shap,5]", "methods.1", "'shap_partition' (not 5)"),
        ("explain", "methods=[]", "methods", "at least 1 item"),
        ("explain", "methods=", "methods", "tuple"),
        ("explain", "file_names=5", "file_names", "tuple"),
        ("explain", "photos=0", "photos", "greater than or equal to 1"),
        ("explain", "split=tset", "split", "'test', 'val' or 'train'"),
        ("explain", "layer=''", "layer", "at least 1 character"),
        ("explain", "shap.background_photos=0", "shap.background_photos", "greater than or equal to 1"),
        ("explain", "randomised_photos=-1", "randomised_photos", "greater than or equal to 0"),
        ("main", "explain.shap.samples=7", "explain.shap", "samples=7 is no multiple of background_photos=10"),
        ("main", "explain.methods=gradcm", "explain.methods", "'shap_partition'"),
    ],
)
def test_wrong_value_names_key_layer_and_reason(step, settings, key, reason):
    message = refusal(step, settings)
    assert message.startswith(f"Config key '{key}' in the parameter 'set': ")
    assert reason in message


def test_wrong_value_of_a_parameter_names_the_command_line():
    message = refusal(augment="maybe")
    assert message == (
        "Config key 'augment' in the command line: "
        "must be true or false (1, 0, yes and no are understood too) (not 'maybe')."
    )


@pytest.mark.parametrize(
    ("word", "meaning"), [("true", True), ("1", True), ("yes", True), ("false", False), ("0", False), ("no", False)]
)
def test_booleans_in_every_accepted_form_and_case(word, meaning):
    for spelled in (word, word.upper(), word.capitalize(), f" {word} "):
        assert (config("train", augment=spelled).policy is not None) is meaning
        assert (config("train", f"augment={spelled.strip()}").policy is not None) is meaning
        assert config("train", balanced=spelled).balanced is meaning


@pytest.mark.parametrize("word", ["maybe", "on", "off", "t", "f", "y", "n", "2", "-1", "1.0", "truee", "none", "null"])
def test_other_words_are_no_booleans(word):
    assert "'augment'" in refusal(augment=word)


@pytest.mark.parametrize("kind", ["model", "augment_policy"])
def test_unknown_named_part_lists_what_there_is(kind):
    message = refusal(**{kind: "bas" if kind == "model" else "lite", "augment": "true"})
    folder = conf_folder() / ("model" if kind == "model" else "augment")
    assert message.startswith("Unknown model '" if kind == "model" else "Unknown augment policy '")
    assert "Did you mean" in message
    assert ", ".join(sorted(file.stem for file in folder.glob("*.yaml"))) in message


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a: [1", "is not YAML"),
        (b"\xff\xfe\x00", "is not YAML"),
        (b"when: 2024-13-45", "is not YAML"),
        (b"- 1\n- 2\n", "must contain 'key: value' pairs"),
        (b"1: 2\n", "must contain 'key: value' pairs"),
        (b"just words\n", "must contain 'key: value' pairs"),
    ],
)
def test_unreadable_files_are_named(tmp_path, content, reason):
    file = tmp_path / "mine.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=reason) as caught:
        read_yaml(file)
    assert f"'{file}'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(ConfigError, match=r"missing\.yaml' cannot be read: No such file"):
        read_yaml(tmp_path / "missing.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_yaml(tmp_path)
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert read_yaml(tmp_path / "empty.yaml") == {}


@pytest.mark.parametrize("word", ["epochs", "=3", ".=3", ".a=3", "a..b=3", "a=[1", "a={", "a=2024-13-45", "a=0x_"])
def test_settings_that_cannot_be_read_are_named(word):
    with pytest.raises(ConfigError, match="the parameter 'set'") as caught:
        parse_settings(f"seed=1 {word}")
    assert f"'{word}'" in str(caught.value)


def test_settings_are_a_tree_of_yaml_values():
    assert parse_settings("") == {}
    assert parse_settings("a.b=1  a.c=[x,2]\ta.b=false d=") == {"a": {"b": False, "c": ["x", 2]}, "d": None}
    assert parse_settings("a='x y'  b=\"it's\" c=it's") == {"a": "x y", "b": "it's", "c": "it's"}
    assert parse_settings("a=no b=on") == {"a": "no", "b": "on"}, "only true and false are booleans in YAML 1.2"
    assert parse_settings("a=[1e-5,2E3] b=5e") == {"a": [1e-5, 2000.0], "b": "5e"}, "numbers in YAML 1.2"
    assert parse_settings("a=1 a.b=2") == {"a": {"b": 2}}


KEYS = st.lists(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), min_size=1, max_size=3).map(".".join)


@given(st.lists(st.tuples(KEYS, st.integers(-(10**6), 10**6) | st.booleans()), max_size=6))
def test_settings_hold_the_last_value_of_every_key(pairs):
    tree = parse_settings(" ".join(f"{key}={str(value).lower()}" for key, value in pairs))
    last: dict[str, object] = {}
    for key, value in pairs:
        overruled = [old for old in last if old.startswith(f"{key}.") or key.startswith(f"{old}.")]
        for old in overruled:
            del last[old]
        last[key] = value
    for key, value in last.items():
        branch: object = tree
        for part in key.split("."):
            assert isinstance(branch, dict)
            branch = branch[part]
        assert branch == value


@given(st.text(max_size=40))
def test_any_text_gives_a_tree_or_a_config_error(text):
    try:
        tree = parse_settings(text)
    except ConfigError as error:
        assert "the parameter 'set'" in str(error)
    else:
        assert isinstance(tree, dict)


@settings(max_examples=40)
@given(KEYS, st.from_regex(r"[\[\]{}:,?!&*0-9a-z._'\"-]{0,12}", fullmatch=True))
def test_any_setting_gives_a_config_or_a_config_error(key, value):
    try:
        load_config("train", settings=f"fit.epochs={value} {key}={value}")
    except ConfigError as error:
        assert str(error)


def test_flatten_gives_dotted_keys_and_texts():
    flat = flatten(config("train"))
    assert flat["fit.epochs"] == str(config("train").fit.epochs)
    assert flat["network.widths"].startswith("[")
    assert all(isinstance(value, str) for value in flat.values())


def test_a_setting_of_another_kind_is_refused_with_the_way_out():
    assert refusal(settings="loss.gamma=3") == (
        "'loss.gamma' in the parameter 'set' is a setting of loss.kind=focal, but it is bce. "
        "Set loss.kind=focal too, or leave it out."
    )
    assert config("train", "loss.gamma=3 loss.kind=focal").loss.gamma == 3
    assert "schedule.kind=exponential or cosine, but it is constant" in refusal(
        settings="schedule.kind=constant schedule.floor=0"
    )
    assert "Set augment=true too" in refusal(augment_policy="light")
    assert "Set models.probe.loss.kind=focal too" in refusal("main", "train.loss.gamma=3")
    assert "Unknown loss 'fokal'. Did you mean 'focal'?" in refusal(settings="loss.kind=fokal")


def test_another_kind_in_a_later_layer_takes_the_settings_of_the_earlier_one_away(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("loss: {kind: focal, gamma: 1}\naugment: true\nviews: 3\nschedule: {kind: cosine, floor: 0.001}\n")
    mine = load_config("train", config_file=str(file))
    assert (mine.loss.gamma, mine.views, mine.schedule.floor) == (1, 3, 0.001)
    loaded = load_config(
        "train", config_file=str(file), parameters={"augment": "false"}, settings="loss.kind=asymmetric"
    )
    assert (loaded.loss.kind, loaded.loss.gamma_negative, loaded.policy, loaded.views) == ("asymmetric", 4.0, None, 0)
    assert loaded.schedule.floor == 0.001
    file.write_text("loss: {kind: bce, gamma: 1}")
    assert f"'loss.gamma' in {file} is a setting of loss.kind=focal" in refusal(config_file=str(file))


def test_what_main_says_of_augmentation_reaches_the_augmented_model():
    main = config("main", "train.augment_policy=light models.dbn.augment=true")
    assert {name: model.policy and model.policy.policy for name, model in main.models.items()} == {
        **{
            "base": None,
            "base_augmented": "light",
            "autoencoder": None,
            "dbn": "light",
            "probe": None,
            "efficientnet_lite": None,
        }
    }


@pytest.mark.parametrize("name", ["base", "probe", "autoencoder", "dbn", "vgg16", "efficientnet_lite"])
def test_models_differ_where_their_files_say_so(name):
    train = config("train", model=name)
    assert train.pretrained == ("auto" if name in ("autoencoder", "dbn") else "none")
    assert train.weights == ("imagenet" if name in ("probe", "vgg16", "efficientnet_lite") else "none")
    assert config("train", model=name, freeze="0.25").freeze == 0.25
    assert config("train", model=name, freeze="block3").freeze == "block3"


def test_method_brings_in_its_learner():
    train = config("train", "network.method=dense_autoencoder network.learner.epochs=3", model="autoencoder")
    assert (train.network.learner.kind, train.network.learner.epochs) == ("dense_autoencoder", 3)
    assert config("pretrain", "learner.epochs=3", method="rbm").learner.layers == (256,)


def test_what_a_models_file_says_of_its_learner_lies_over_the_methods_file(tmp_path):
    file = tmp_path / "mine.yaml"
    shipped = yaml.safe_load((conf_folder() / "model" / "autoencoder.yaml").read_text())
    shipped["network"]["learner"] = {"epochs": 3, "widths": [4]}
    file.write_text(yaml.safe_dump(shipped))
    learner = config("train", "network.learner.widths=[8]", model=str(file)).network.learner
    method = yaml.safe_load((conf_folder() / "pretrain" / "conv_autoencoder.yaml").read_text())
    assert (learner.epochs, learner.widths, learner.batch_size) == (3, (8,), method["batch_size"])
    assert config("main", f"models.mine.model={file}").models["mine"].network.learner.epochs == 3


MAIN_MODELS = ("probe", "efficientnet_lite", "base", "base_augmented", "autoencoder", "dbn")


@pytest.mark.parametrize(
    ("step", "settings", "reason"),
    [
        ("pretrain", "method=rbm learner.hidden_units=0", "'learner.hidden_units'.*greater than or equal to 1"),
        (
            "pretrain",
            "method=dbn learner.hidden_units=[64,-3]",
            r"'learner\.hidden_units\.1'.*or equal to 1",
        ),
        ("pretrain", "method=dbn learner.hidden_units=[]", "'learner.hidden_units'.*at least 1"),
        ("pretrain", "method=rmb", "Unknown method 'rmb'. Did you mean 'rbm'?"),
        (
            "pretrain",
            "method=dbn learner.widths=[4]",
            "'learner.widths' .* of learner.kind=conv_autoencoder, .*another method",
        ),
        ("train", "pretrained=auto", "model=base has no encoder"),
        ("train", "model=probe pretrained=auto", "model=probe has no encoder"),
        ("train", "model=objects pretrained=abc", "model=objects has no encoder"),
        ("train", "weights=imagenet", "only transfer models take weights"),
        ("train", "unlabelled=photos", "pretrained=auto"),
        ("train", "views=3", "augment=true"),
        ("train", "freeze=1.5", "less than or equal to 1"),
        ("train", "model=dbn network.method=conv_autoencoder", "kind must be one of rbm, dbn"),
        ("train", "model=vgg16 network.widths=[4]", "'network.widths' .* of network.kind=cnn, .*another model"),
        ("cluster", "k=1", "'k'.*greater than or equal to 2"),
        ("cluster", "k_range=[5,3]", "must rise"),
        ("pretrain", "method=dense_autoencoder learner.noise.strength=0.5", "needs a name: gaussian"),
        ("main", " ".join(f"models.{one}=null" for one in MAIN_MODELS), "'models'.*at least 1 item"),
        ("main", "models.dbn.resume=abc", "resume cannot be set"),
        ("main", "models.dbn.fold=1", "one job has one split"),
    ],
)
def test_learners_and_models_that_cannot_be(step, settings, reason):
    assert re.search(reason, refusal(step, settings=settings))


@pytest.mark.parametrize(
    "settings",
    [
        "shap.samples=7",
        "shap.background_photos=4",
        "shap.samples=0",
        "methods=shap,shap",
        "methods=[gradcam,shap,gradcam]",
    ],
)
def test_settings_of_explain_that_do_not_fit_together(settings):
    words = "no multiple of|greater than or equal|one of them twice"
    assert re.search(words, refusal("explain", settings))


def test_names_are_listed_with_commas_or_as_a_list():
    for methods in ("shap,gradcam", " shap , gradcam, ", "shap,gradcam,"):
        assert config("explain", methods=methods).methods == ("shap", "gradcam")
    assert config("explain", "methods=[shap,gradcam]").methods == ("shap", "gradcam")
    assert config("explain", methods="auto").methods == config("explain").methods == "auto"
    assert config("explain", file_names="a b.jpg, c.jpg").file_names == ("a b.jpg", "c.jpg")
    assert config("explain", """file_names=["a, b.jpg",'c.jpg']""").file_names == ("a, b.jpg", "c.jpg")
    assert config("explain", file_names=" , ").file_names == config("explain").file_names == ()


def test_explain_follows_what_main_says_of_train():
    main = config("main", "train.seed=5 train.bootstrap_resamples=150 train.fold=0")
    assert (main.explain.seed, main.explain.bootstrap_resamples) == (5, 150)
    own = config("main", "train.bootstrap_resamples=150 explain.bootstrap_resamples=200 explain.methods=shap")
    assert (own.explain.bootstrap_resamples, own.explain.methods) == (200, ("shap",))
    assert own.models["base"].bootstrap_resamples == 150
    assert config("main", "train.data_folder=there prepare.data_folder=there").explain.data_folder.name == "there"


def test_main_lays_each_model_over_the_section_train():
    main = config("main", "train.fit.epochs=3 models.probe.fit.epochs=2 models.dbn=null train.network.widths=[4]")
    assert list(main.models) == ["probe", "efficientnet_lite", "base", "base_augmented", "autoencoder"]
    assert {name: model.fit.epochs for name, model in main.models.items()} == {
        **{"probe": 2, "efficientnet_lite": 3, "base": 3, "base_augmented": 3, "autoencoder": 3}
    }
    assert main.models["base_augmented"].network.widths == (4,)
    assert main.models["autoencoder"].network.kind == "autoencoder"
    assert [model.augmentation.kind for model in main.models.values()] == [*("none", "none", "none", "policy", "none")]
    assert config("main", dataset="sample", seed="4").models["dbn"].seed == 4
    assert config("main", "train.data_folder=there prepare.data_folder=there").cluster.data_folder.name == "there"
    again = config("main", "models.again.model=base models.again.seed=1")
    assert (again.models["again"].seed, again.models["base"].seed) == (1, 0)
