import pytest

from maximir import MaximirError
from maximir.recipe import Recipe, available, load_recipe

GOOD = {
    "task": "denoise",
    "degradation": "blind-gaussian",
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
        ({"phases": [GOOD["phases"][0], GOOD["phases"][0], GOOD["phases"][1]]}, "must grow"),
        ({"degradation": "fog"}, "degradation must be one of blind-gaussian"),
        ({"degradation": [1]}, "degradation"),
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
        ({"phases": 3}, "recipe: "),
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
    (tmp_path / "bad.toml").write_text("steps = = 3")
    with pytest.raises(MaximirError, match="not valid TOML"):
        load_recipe(str(tmp_path / "bad.toml"))
    with pytest.raises(MaximirError, match="cannot be read"):
        load_recipe(str(tmp_path / "missing.toml"))
    with pytest.raises(MaximirError, match="unknown recipe 'deblur-huge'"):
        load_recipe("deblur-huge")


def test_overrides_keep_the_rest_of_a_table():
    recipe = load_recipe("denoise-small", {"model": {"features": 8}, "steps": 3})
    assert recipe.steps == 3
    assert (recipe.model.features, recipe.model.stages, recipe.model.groups) == (8, 1, 1)
