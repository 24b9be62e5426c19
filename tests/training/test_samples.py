import itertools
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from maximir import MaximirError
from maximir.degradations import DEGRADATIONS, Degradation, blur
from maximir.training.data import ImageFile, Scene, find_pairs, find_scenes
from maximir.training.samples import (
    PhasedSamples,
    RunSampler,
    Samples,
    Views,
    augment,
    collate,
    kind_of,
    load_again,
    views,
)

ENOUGH = 1 << 30


def coordinates(height, width, number=0):
    """A photograph whose pixels tell where they are: row, column, number."""
    return np.stack(np.broadcast_arrays(*np.mgrid[:height, :width], number), axis=-1).astype(np.uint8)


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def corrupt(path):
    """Keep the header, which tells the size, but not the pixels."""
    path.write_bytes(path.read_bytes()[:-40])


def clean_views(folder, *photographs, in_memory=ENOUGH, report=pytest.fail):
    for number, photograph in enumerate(photographs):
        save(folder / f"{number}.bmp", photograph)
    found = views(find_scenes([folder]), [1.0], 1, pytest.fail, "clean")
    return Views(found, in_memory, report)


def pixels(tensor):
    """[3, H, W] float → [H, W, 3] uint8."""
    return tensor.mul(255).round().permute(1, 2, 0).numpy().astype(np.uint8)


def turned(photograph):
    return [augment(photograph, turns, flip) for turns in range(4) for flip in (False, True)]


def locate(crop, photograph):
    """Where it is cut from: the photograph, turned as the crop is, and row and column; or None."""
    for whole in turned(photograph):
        for row, column in np.argwhere((whole == crop[0, 0]).all(axis=-1)):
            piece = whole[row : row + crop.shape[0], column : column + crop.shape[1]]
            if np.array_equal(piece, crop):
                return whole, row, column
    return None


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch):
    """Degradations of which the result is known."""
    for name, degradation in {
        "none": Degradation(lambda image, rng: image),
        "half": Degradation(lambda image, rng: image / 2),
        "white": Degradation(lambda image, rng: np.ones_like(image)),
        "black": Degradation(lambda image, rng: np.zeros_like(image)),
        "depth": Degradation(lambda image, rng, depth: np.repeat(depth[..., None], 3, -1), needs_depth=True),
        "depth-3": Degradation(
            lambda im, rng, depth: np.repeat(depth[..., None], 3, -1), 3, needs_depth=True
        ),
    }.items():
        monkeypatch.setitem(DEGRADATIONS, name, degradation)


# Crops


def test_samples_depend_on_their_number_only(tmp_path):
    rng = np.random.default_rng(0)
    source = clean_views(tmp_path, *(rng.integers(0, 256, (20 + i, 30, 3), np.uint8) for i in range(3)))

    def samples(seed):
        return Samples({"gaussian": 1, "haze": 1}, {"clean": source}, seed, mixup=0.5)

    first, again, other = samples(1), samples(1), samples(2)
    backwards = {number: again[number, 16] for number in reversed(range(12))}
    seen = set()
    for number in range(12):
        sample = first[number, 16]
        assert sample.degraded.shape == sample.clean.shape == (3, 16, 16)
        assert sample.degraded.dtype == sample.clean.dtype == torch.float32
        assert torch.equal(sample.degraded, backwards[number].degraded)
        assert torch.equal(sample.clean, backwards[number].clean)
        assert not torch.equal(sample.clean, other[number, 16].clean)
        seen.add(sample.clean.numpy().tobytes())
    assert len(seen) == 12


@pytest.mark.parametrize(("rotate", "kinds"), [(True, 8), (False, 2)])
def test_crops_are_turned_pieces(rotate, kinds, tmp_path):
    photograph = coordinates(12, 12)
    samples = Samples({"none": 1}, {"clean": clean_views(tmp_path, photograph)}, 0, rotate=rotate)
    seen = set()
    for number in range(80):
        sample = samples[number, 12]
        assert torch.equal(sample.degraded, sample.clean)
        seen.add(pixels(sample.clean).tobytes())
    ways = turned(photograph) if rotate else [photograph, photograph[:, ::-1]]
    assert len(seen) == kinds and seen == {way.tobytes() for way in ways}


def test_photographs_get_other_colours_before_they_are_degraded(tmp_path):
    source = clean_views(tmp_path, np.full((8, 8, 3), (120, 100, 80), np.uint8))
    samples = Samples({"half": 1}, {"clean": source}, 0, recolour=0.5)
    seen = [samples[number, 8] for number in range(200)]
    assert all(torch.equal(sample.degraded, sample.clean / 2) for sample in seen)
    colours = np.array([255 * sample.clean[:, 0, 0].numpy() for sample in seen])
    assert np.allclose(colours.mean(axis=1), 100, atol=0.01)  # saturation does not change the mean
    kept = np.isclose(colours, (120, 100, 80), atol=0.01).all(axis=1)
    assert 0.4 < kept.mean() < 0.65
    others = colours[~kept]
    assert len(np.unique(np.argsort(others, axis=1), axis=0)) == 6  # all orders of the channels
    assert np.ptp(others, axis=1).min() < 4 and np.ptp(others, axis=1).max() > 76  # from grey to saturated
    assert colours.min() >= 60 and colours.max() <= 140


def test_pairs_keep_their_colours(tmp_path):
    for kind in ("input", "target"):
        save(tmp_path / f"a_{kind}.png", coordinates(8, 8))
    found = views(find_pairs([tmp_path]), [1.0], 1, pytest.fail, "pairs")
    samples = Samples({"pairs": 1}, {"pairs": Views(found, ENOUGH, pytest.fail)}, 0, recolour=1)
    ways = {way.tobytes() for way in turned(coordinates(8, 8))}
    assert all(pixels(samples[number, 8].degraded).tobytes() in ways for number in range(20))


def test_crops_come_from_everywhere(tmp_path):
    samples = Samples({"none": 1}, {"clean": clean_views(tmp_path, coordinates(9, 11))}, 0, rotate=False)
    corners = set()
    for number in range(300):
        crop = pixels(samples[number, 8].clean)
        corners.add((int(crop[..., 0].min()), int(crop[..., 1].min())))
    assert corners == set(itertools.product(range(2), range(4)))


def test_degraded_and_clean_are_the_same_crop(tmp_path):
    samples = Samples({"half": 1}, {"clean": clean_views(tmp_path, coordinates(40, 50))}, 0)
    for number in range(20):
        sample = samples[number, 16]
        torch.testing.assert_close(2 * sample.degraded, sample.clean)


def test_large_photographs_are_seen_more_often(tmp_path):
    source = clean_views(tmp_path, coordinates(8, 8, 0), coordinates(16, 24, 255))
    samples = Samples({"none": 1}, {"clean": source}, 0)
    share = np.mean([samples[number, 8].clean[2].mean().item() for number in range(500)])
    assert share == pytest.approx(6 / 7, abs=0.05)


# Mixtures


def test_shares_of_the_mixture(tmp_path):
    save(tmp_path / "pairs" / "a_input.png", np.full((8, 8, 3), 51, np.uint8))
    save(tmp_path / "pairs" / "a_target.png", np.full((8, 8, 3), 51, np.uint8))
    sources = {
        "clean": clean_views(tmp_path / "clean", coordinates(8, 8)),
        "pairs": Views(
            views(find_pairs([tmp_path / "pairs"]), [1], 1, pytest.fail, "pairs"), ENOUGH, pytest.fail
        ),
    }
    samples = Samples({"white": 0.5, "pairs": 2, "black": 1.5}, sources, 0)
    values = np.array([samples[number, 4].degraded.mean().item() for number in range(800)]).round(2)
    counts = {value: np.mean(values == value) for value in np.unique(values)}
    assert counts == pytest.approx({0.0: 0.375, 0.2: 0.5, 1.0: 0.125}, abs=0.05)


def test_kinds_of_sources():
    names = ("pairs", "rain", "haze", "depth-haze", "motion-blur")
    assert [kind_of(name) for name in names] == ["pairs", "clean", "clean", "depth", "clean"]


def test_mixup_blends_degraded_and_clean_alike(tmp_path):
    source = clean_views(tmp_path, np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8))
    samples = Samples({"half": 1}, {"clean": source}, 0, mixup=1.0)
    shares = []
    for number in range(600):
        sample = samples[number, 4]
        torch.testing.assert_close(2 * sample.degraded, sample.clean)
        shares.append(sample.clean.mean().item())
    blended = [share for share in shares if 1e-6 < share < 1 - 1e-6]
    assert len(blended) == pytest.approx(300, abs=50)  # the others blend two of the same colour
    assert np.mean(blended) == pytest.approx(0.5, abs=0.05)
    assert np.std(blended) == pytest.approx(0.271, abs=0.025)  # of the beta distribution


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_mixup_has_the_stated_probability(probability, tmp_path):
    photograph = np.random.default_rng(0).integers(0, 256, (10, 10, 3), np.uint8)
    samples = Samples({"none": 1}, {"clean": clean_views(tmp_path, photograph)}, 0, mixup=probability)
    blended = np.mean([locate(pixels(samples[number, 6].clean), photograph) is None for number in range(300)])
    assert blended == pytest.approx(probability, abs=0.08 if 0 < probability < 1 else 0.02)


# Margins


def test_margins_make_the_degraded_crop_that_of_the_degraded_photograph(monkeypatch, tmp_path):
    """The photograph goes on mirrored beyond its borders, as in validation."""
    margin = 3
    kernel = np.random.default_rng(0).random((7, 7), dtype=np.float32)
    kernel /= kernel.sum()
    monkeypatch.setitem(
        DEGRADATIONS, "smear", Degradation(lambda image, rng: blur.convolve(image, kernel), margin)
    )
    photograph = coordinates(20, 26, 9)
    samples = Samples({"smear": 1}, {"clean": clean_views(tmp_path, photograph)}, 0)
    inside = 0
    for number in range(60):
        sample = samples[number, 10]
        assert sample.degraded.shape == sample.clean.shape == (3, 10, 10)
        whole, top, left = locate(pixels(sample.clean), photograph)
        wide = np.pad(whole, [(margin, margin), (margin, margin), (0, 0)], mode="reflect")
        smeared = blur.convolve(wide.astype(np.float32) / 255, kernel)[margin:-margin, margin:-margin]
        expected = smeared[top : top + 10, left : left + 10]
        np.testing.assert_allclose(sample.degraded.permute(1, 2, 0).numpy(), expected, atol=1e-5)
        inside += margin <= top <= whole.shape[0] - 13 and margin <= left <= whole.shape[1] - 13
    assert 0 < inside < 60  # both are met: crops at the border, and crops within


def test_motion_blur_leaves_the_clean_crop_a_piece_of_the_photograph(tmp_path):
    photograph = coordinates(70, 80)
    samples = Samples({"motion-blur": 1}, {"clean": clean_views(tmp_path, photograph)}, 0)
    for number in range(8):
        sample = samples[number, 64]
        assert sample.degraded.shape == (3, 64, 64)
        assert locate(pixels(sample.clean), photograph) is not None


# Depth and pairs


@pytest.mark.parametrize("name", ["depth", "depth-3"])
def test_depth_is_cropped_like_the_photograph(name, tmp_path):
    save(tmp_path / "a.png", coordinates(30, 40))
    save(tmp_path / "a_depth.png", coordinates(30, 40)[..., 0])
    found = views(find_scenes([tmp_path]), [1.0], 16, pytest.fail, "depth")
    samples = Samples({name: 1}, {"depth": Views(found, ENOUGH, pytest.fail)}, 0)
    for number in range(20):
        sample = samples[number, 16]
        mean = 14.5 / 255  # of the whole map, not of the crop
        torch.testing.assert_close(sample.degraded, sample.clean[:1].expand(3, -1, -1) / mean)


def test_depth_maps_of_another_size_are_fitted(tmp_path):
    save(tmp_path / "a.png", coordinates(40, 60))
    save(tmp_path / "a_depth.png", coordinates(20, 30)[..., 0] * 2)
    for scale in (1.0, 0.5):
        (view,) = views(find_scenes([tmp_path]), [scale], 1, pytest.fail, "depth")
        clean, depth = view.load()
        assert depth.shape == clean.shape[:2] == (40 * scale, 60 * scale) and depth.dtype == np.float32
        np.testing.assert_allclose(depth[2:-2], clean[2:-2, :, 0] / 19, atol=1.2 / 19)


def test_only_depth_views_have_depth(tmp_path):
    save(tmp_path / "a.png", coordinates(8, 8))
    save(tmp_path / "a_depth.png", coordinates(8, 8)[..., 0])
    (view,) = views(find_scenes([tmp_path]), [1.0], 1, pytest.fail, "clean")
    assert view.depth is None and len(view.load()) == 1


@pytest.mark.parametrize("in_memory", [0, ENOUGH])
def test_both_files_of_a_pair_are_cropped_alike(in_memory, tmp_path):
    photograph = coordinates(30, 40)
    save(tmp_path / "a_target.png", photograph)
    save(tmp_path / "a_1_input.png", 255 - photograph)
    save(tmp_path / "a_2_input.png", photograph // 2)
    found = views(find_pairs([tmp_path]), [1.0], 16, pytest.fail, "pairs")
    assert len(found) == 2
    samples = Samples({"pairs": 1}, {"pairs": Views(found, in_memory, pytest.fail)}, 0)
    inverted = 0
    for number in range(40):
        sample = samples[number, 16]
        clean, degraded = pixels(sample.clean), pixels(sample.degraded)
        assert locate(clean, photograph) is not None
        if np.array_equal(degraded, 255 - clean):
            inverted += 1
        else:
            np.testing.assert_array_equal(degraded, clean // 2)
    assert 10 < inverted < 30


# Views


def scene(folder, name, height, width):
    return Scene(name, ImageFile(save(folder / f"{name}.png", coordinates(height, width))))


def test_views_shrink_and_leave_out_what_is_too_small(tmp_path):
    scenes = [scene(tmp_path, "a", 80, 100), scene(tmp_path, "b", 64, 64), scene(tmp_path, "c", 63, 200)]
    reports = []
    found = views(scenes, [1.0, 0.8, 0.5], 64, reports.append, "clean")
    assert reports == ["left out 1 images (clean): smaller than 64 x 64 pixels"]
    sizes = [(view.files[0].path.stem, view.height, view.width) for view in found]
    assert sizes == [("a", 80, 100), ("a", 64, 80), ("b", 64, 64)]
    for view in found:
        assert view.load()[0].shape == (view.height, view.width, 3)


def test_shrunk_views_are_the_whole_photograph(tmp_path):
    (view,) = views([scene(tmp_path, "a", 80, 120)], [0.5], 1, pytest.fail, "clean")
    (image,) = view.load()
    np.testing.assert_allclose(image[..., 0], 2 * coordinates(40, 60)[..., 0] + 0.5, atol=1)
    np.testing.assert_allclose(image[..., 1], 2 * coordinates(40, 60)[..., 1] + 0.5, atol=1)


def test_pairs_are_shrunk_alike(tmp_path):
    photograph = coordinates(40, 60)
    save(tmp_path / "a_target.png", photograph)
    save(tmp_path / "a_input.png", 255 - photograph)
    (view,) = views(find_pairs([tmp_path]), [0.5], 1, pytest.fail, "pairs")
    clean, degraded = view.load()
    assert clean.shape == degraded.shape == (20, 30, 3)
    assert np.abs(255 - clean.astype(int) - degraded).max() <= 1


def test_unreadable_scenes_are_reported(tmp_path):
    scenes = [scene(tmp_path, "a", 16, 16), scene(tmp_path, "b", 16, 16)]
    scenes[0].target.path.write_bytes(b"no image")
    reports = []
    assert [view.files[0] for view in views(scenes, [1.0], 8, reports.append, "clean")] == [scenes[1].target]
    assert len(reports) == 1 and reports[0].startswith("skipped") and "a.png: cannot be read" in reports[0]


def test_no_view_left(tmp_path):
    scenes = [scene(tmp_path, "a", 80, 100), scene(tmp_path, "b", 64, 64)]
    with pytest.raises(MaximirError, match=r"none of the 2 .*a\.png\) is readable .*at least 128 pixels"):
        views(scenes, [1.0], 128, print, "clean")


# Memory and damage


@pytest.mark.parametrize("in_memory", [0, 2 * 20 * 30 * 3, 3 * 20 * 30 * 3 - 1])
def test_what_does_not_fit_into_memory_gives_the_same_samples(in_memory, tmp_path):
    photographs = [coordinates(20, 30, number) for number in range(4)]
    within = clean_views(tmp_path, *photographs)
    beyond = clean_views(tmp_path, *photographs, in_memory=in_memory)
    assert within.bytes == 4 * 20 * 30 * 3 and len(within) == len(beyond) == 4
    assert beyond.bytes == (0 if in_memory == 0 else 2 * 20 * 30 * 3)
    few, many = (Samples({"gaussian": 1}, {"clean": source}, 0, mixup=0.5) for source in (within, beyond))
    for number in range(20):
        assert torch.equal(few[number, 16].degraded, many[number, 16].degraded)
        assert torch.equal(few[number, 16].clean, many[number, 16].clean)


@pytest.mark.parametrize("in_memory", [0, ENOUGH])
def test_a_few_images_are_decoded_once(in_memory, tmp_path, monkeypatch):
    loaded = []
    load = ImageFile.load
    monkeypatch.setattr(ImageFile, "load", lambda self: loaded.append(self.path.name) or load(self))
    source = clean_views(tmp_path, *(coordinates(8, 8) for _ in range(3)), in_memory=in_memory)
    assert len(loaded) == (3 if in_memory else 0)
    samples = Samples({"none": 1}, {"clean": source}, 0)
    for number in range(40):
        samples[number, 8]
    assert sorted(loaded) == ["0.bmp", "1.bmp", "2.bmp"]  # so few are kept even without memory


def test_an_image_that_turns_out_corrupt_is_named_and_replaced(tmp_path):
    photographs = [coordinates(20, 30, number) for number in range(3)]
    intact = clean_views(tmp_path, *photographs, in_memory=0)
    before = [Samples({"none": 1}, {"clean": intact}, 0)[number, 16] for number in range(40)]
    corrupt(tmp_path / "1.bmp")
    load_again.cache_clear()
    runs = []
    for _ in range(2):
        damaged = clean_views(tmp_path, in_memory=0)
        runs.append([Samples({"none": 1}, {"clean": damaged}, 0)[number, 16] for number in range(40)])
    replaced = 0
    for old, sample, again in zip(before, *runs, strict=True):
        assert torch.equal(sample.clean, again.clean) and sample.skipped == again.skipped
        number = pixels(sample.clean)[0, 0, 2]
        assert number in (0, 2)
        if sample.skipped:
            replaced += 1
            assert all("1.bmp: cannot be read as an image" in message for message in sample.skipped)
            assert pixels(old.clean)[0, 0, 2] == 1
        else:
            assert torch.equal(old.clean, sample.clean)
    assert 5 < replaced < 25
    batch = collate(runs[0])
    assert batch.degraded.shape == batch.clean.shape == (40, 3, 16, 16)
    assert torch.equal(batch.clean[7], runs[0][7].clean)
    assert batch.skipped == [message for sample in runs[0] for message in sample.skipped]


def test_corrupt_images_are_reported_while_decoding(tmp_path):
    corrupt(save(tmp_path / "0.bmp", coordinates(8, 8, 0)))
    save(tmp_path / "1.bmp", coordinates(8, 8, 1))
    reports = []
    samples = Samples({"none": 1}, {"clean": clean_views(tmp_path, report=reports.append)}, 0)
    assert len(reports) == 1 and "0.bmp: cannot be read as an image" in reports[0]
    assert {int(pixels(samples[number, 8].clean)[0, 0, 2]) for number in range(10)} == {1}


def test_nothing_but_corrupt_images(tmp_path):
    corrupt(save(tmp_path / "0.bmp", coordinates(8, 8)))
    with pytest.raises(MaximirError, match="no training image can be read"):
        clean_views(tmp_path, report=lambda message: None)
    samples = Samples({"none": 1}, {"clean": clean_views(tmp_path, in_memory=0)}, 0)
    with pytest.raises(MaximirError, match=r"in a row cannot be read; the last: .*0\.bmp"):
        samples[0, 8]


def test_samples_do_not_depend_on_memory_even_beside_a_corrupt_image(tmp_path):
    source = clean_views(tmp_path, *(coordinates(20, 30, number) for number in range(3)), in_memory=0)
    corrupt(tmp_path / "1.bmp")
    load_again.cache_clear()
    decoded = clean_views(tmp_path, report=lambda message: None)
    few, many = (Samples({"none": 1}, {"clean": views}, 0) for views in (source, decoded))
    for number in range(30):
        assert torch.equal(few[number, 16].clean, many[number, 16].clean)


def test_sources_can_be_sent_to_loader_workers(tmp_path):
    source = pickle.loads(pickle.dumps(clean_views(tmp_path, coordinates(8, 8), in_memory=0)))
    assert Samples({"none": 1}, {"clean": source}, 0)[0, 8].clean.shape == (3, 8, 8)


def test_a_depth_map_in_colour_is_named(tmp_path):
    save(tmp_path / "a.png", coordinates(8, 8))
    save(tmp_path / "a_depth.png", coordinates(8, 8))
    (view,) = views(find_scenes([tmp_path]), [1.0], 1, pytest.fail, "depth")
    with pytest.raises(MaximirError, match=r"a_depth\.png"):
        view.load()


# Batches


def batch_of(step):
    return (4, 64, 0) if step < 3 else (3, 128, 1)


def test_batches_go_on_where_a_run_stopped():
    whole = list(RunSampler(0, 5, batch_of))
    assert whole[2:] == list(RunSampler(2, 5, batch_of))
    assert [len(batch) for batch in whole] == [4, 4, 4, 3, 3]
    assert len(RunSampler(0, 5, batch_of)) == 5 and len(RunSampler(2, 5, batch_of)) == 3
    assert len({number for batch in whole for number, _, _ in batch}) == 18  # none comes twice
    assert [{each[1:] for each in batch} for batch in whole] == [{(64, 0)}] * 3 + [{(128, 1)}] * 2


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_processes_share_the_global_batch(processes):
    ranks = [list(RunSampler(1, 5, batch_of, rank, processes)) for rank in range(processes)]
    for batch, *parts in zip(RunSampler(1, 5, batch_of), *ranks, strict=True):
        assert sorted(itertools.chain(*parts)) == sorted(batch)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_each_phase_has_its_own_mixture(tmp_path, monkeypatch):
    for name, value in {"black": 0, "white": 1}.items():
        monkeypatch.setitem(
            DEGRADATIONS, name, Degradation(lambda image, rng, value=value: 0 * image + value)
        )
    sources = {"clean": clean_views(tmp_path, coordinates(40, 50))}
    recipe = SimpleNamespace(
        mixtures=[{"black": 1}, {"white": 1}],
        seed=0,
        mixup=0.0,
        rotate=True,
        recolour=0.0,
        taught=0.5,
        teacher="",
    )
    samples = PhasedSamples(recipe, sources)
    single = Samples({"white": 1}, sources, 0)
    assert not samples[3, 16, 0].degraded.any()
    assert (samples[3, 16, 1].degraded == 1).all()
    assert (samples[3, 16, 1].clean == single[3, 16].clean).all()
