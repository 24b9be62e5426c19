import pytest

from maximir import VARIANTS, MaximirError
from maximir.training.recipe import Recipe, available, load_recipe

GOOD = {
    "task": "denoise",
    "mixture": {"gaussian": 1.0},
    "steps": 10,
    "phases": [{"until": 0.5, "patch": 64, "batch": 8}, {"until": 1.0, "patch": 128, "batch": 4}],
}


@pytest.mark.parametrize("name", available())
def test_the_recipes_in_the_box_are_valid(name):
    recipe = load_recipe(name)
    assert Recipe.from_dict(recipe.to_dict()) == recipe


def test_defaults_are_the_papers():
    recipe = Recipe.from_dict(GOOD)
    assert (recipe.optimizer, recipe.learning_rate, recipe.final_learning_rate) == ("adam", 2e-4, 1e-7)


def test_phases():
    recipe = Recipe.from_dict(GOOD)
    assert [recipe.phase(step).patch for step in (0, 4, 5, 9)] == [64, 64, 128, 128]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"stepz": 3}, "unknown key 'stepz'"),
        ({"phases": [{"until": 1.0, "patch": 64}]}, "batch"),
        ({"phases": [{"until": 1.0, "patch": 100, "batch": 1}]}, "multiple of 64"),
        ({"phases": [{"until": 1.0, "patch": 64.0, "batch": 1}]}, "multiple of 64"),
        ({"phases": [{"until": 1.0, "patch": 64, "batch": 0}]}, "positive integer"),
        ({"phases": [{"until": 1.0, "patch": 64, "batch": 1, "mixture": {"gauss": 1}}]}, "phase's mixture"),
        ({"phases": [{"until": 1.0, "patch": 64, "batch": 1, "mixture": 3}]}, "phase's mixture"),
        ({"phases": [GOOD["phases"][0], GOOD["phases"][0], GOOD["phases"][1]]}, "must grow"),
        ({"mixture": {"fog": 1.0}}, "mixture must be a table of positive shares of pairs, gaussian"),
        ({"mixture": {"rain": 0}}, "mixture"),
        ({"mixture": {}}, "mixture"),
        ({"mixture": "rain"}, "mixture"),
        ({"validate_with": ["fog"]}, "validate_with must be a list of gaussian"),
        ({"hold_out": [3]}, "hold_out"),
        ({"hold_out": "lol_9"}, "hold_out must be a list"),
        ({"learning_rate": float("inf")}, "learning_rate"),
        ({"scales": ["a"]}, "scales must be numbers"),
        ({"seed": 10**19}, "seed"),
        ({"mixup": 1.5}, "mixup"),
        ({"pair_scales": [2.0]}, "pair_scales"),
        ({"start_at": 1.0}, "start_at"),
        ({"task": "paint"}, "task must be one of denoise"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"learning_rate": "x"}, "learning_rate"),
        ({"betas": [0.9]}, "betas"),
        ({"ema": 2.0}, "ema"),
        ({"warmup": -5}, "warmup"),
        ({"scales": []}, "scales"),
        ({"seed": -1}, "seed"),
        ({"steps": True}, "steps"),
        ({"start_as_identity": "no"}, "start_as_identity"),
        ({"phases": [{"until": 0.9, "patch": 64, "batch": 1}]}, r"until = 1\.0"),
        ({"phases": []}, r"until = 1\.0"),
        ({"phases": 3}, "phases must be a list of tables with until, patch, batch"),
        ({"phases": [{"until": 1.0, "patch": 64, "batch": 1, "size": 2}]}, "phases must be a list of tables"),
        ({"model": 3}, "model must be a table"),
        ({"step": 3}, "unknown key 'step'; did you mean 'steps'"),
        ({"steps": 0}, "positive integer"),
        ({"steps": "many"}, "recipe: "),
        ({"optimizer": "sgd"}, "optimizer"),
        ({"precision": "fp8"}, "precision"),
        ({"model": {"width": 3}}, "unknown field 'width'"),
    ],
)
def test_bad_recipes(changes, reason):
    with pytest.raises(MaximirError, match=reason):
        Recipe.from_dict(GOOD | changes)


def test_missing_key():
    with pytest.raises(MaximirError, match="'task' is missing"):
        Recipe.from_dict({key: value for key, value in GOOD.items() if key != "task"})


def test_bad_files(tmp_path):
    for text in ("steps = = 3", "steps = " + "[" * 100_000):
        (tmp_path / "bad.toml").write_text(text)
        with pytest.raises(MaximirError, match="not valid TOML"):
            load_recipe(str(tmp_path / "bad.toml"))
    with pytest.raises(MaximirError, match="cannot be read"):
        load_recipe(str(tmp_path / "missing.toml"))
    with pytest.raises(MaximirError, match="unknown recipe 'deblur-huge'"):
        load_recipe("deblur-huge")


def test_overrides_keep_the_rest_of_a_table():
    recipe = load_recipe("denoise-gaussian", {"model": {"features": 8}, "steps": 3})
    assert recipe.steps == 3
    assert (recipe.model.features, recipe.model.stages, recipe.model.groups) == (8, 1, 1)


def test_an_override_replaces_the_mixture():
    assert load_recipe("derain-small", {"mixture": {"rain": 1.0}}).mixture == {"rain": 1.0}


@pytest.mark.parametrize(
    ("name", "task", "variant"),
    [
        ("sidd", "denoise", "S-3"),
        ("gopro", "deblur", "S-3"),
        ("reds", "deblur", "S-3"),
        ("realblur-r", "deblur", "S-3"),
        ("realblur-j", "deblur", "S-3"),
        ("rain13k", "derain", "S-2"),
        ("raindrop", "derain", "S-2"),
        ("sots-indoor", "dehaze", "S-2"),
        ("sots-outdoor", "dehaze", "S-2"),
        ("lol", "enhance", "S-2"),
        ("fivek", "enhance", "S-2"),
    ],
)
def test_the_released_sets_have_their_recipes(name, task, variant):
    recipe = load_recipe(f"official/{name}")
    assert (recipe.task, recipe.model) == (task, VARIANTS[variant])
    assert (recipe.optimizer, recipe.learning_rate, recipe.final_learning_rate) == ("adam", 2e-4, 1e-7)
    assert (recipe.mixture, recipe.mixup) == ({"pairs": 1.0}, 0.5)
    assert [phase.patch for phase in recipe.phases] == [256]


def test_there_are_eleven_released_sets():
    assert sum(name.startswith("official/") for name in available()) == 11


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_recipes_are_utf_8_with_or_without_a_byte_order_mark(mark, tmp_path, monkeypatch):
    monkeypatch.setattr("locale.getpreferredencoding", lambda *args: "cp1252")
    text = '# Für Straßen\ntask = "derain"\nmixture = { rain = 1.0 }\nhold_out = ["Bäume*"]\nsteps = 5\n'
    text += "phases = [{ until = 1.0, patch = 64, batch = 1 }]\n"
    (tmp_path / "x.toml").write_bytes(mark + text.encode())
    assert load_recipe(str(tmp_path / "x.toml")).hold_out == ("Bäume*",)
