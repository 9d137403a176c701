"""Speed of pictures: renderers, pairs, corruptions, inferred groups, probes, folders. Called by ``benchmarks/run.py``."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

Told = Callable[[str, str, str, bool], None]
HERE = Path(__file__).parent


def interleaved(fast: Callable[[], float], slow: Callable[[], float], repeats: int = 3) -> tuple[float, float]:
    """Return the median items a second of each."""
    both = [(fast(), slow()) for _ in range(repeats)]
    return float(np.median([a for a, _ in both])), float(np.median([b for _, b in both]))


def per_second(count: int, function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return count / (time.perf_counter() - start)


def worlds(told: Told) -> None:
    """Sprites and rooms drawn, against a plain NumPy version over full frames; pairs against one at a time."""
    sys.path.insert(0, str(HERE.parent / "tests"))
    from elsewhere.factors.grid import split
    from elsewhere.images import rooms, sprites
    from elsewhere.images.worlds import SHAPES3D
    from elsewhere.images.worlds import sprites as sprites_world
    from elsewhere.nn.pairs import Pairs
    from test_encoders import naive_changed, naive_walk
    from test_factors import naive_sprite

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    n = 20_000
    p = [rng.integers(0, 3, n), rng.uniform(0.5, 1, n), rng.uniform(0, 6, n), rng.random(n), rng.random(n)]
    fast, slow = interleaved(lambda: per_second(n, lambda: sprites.draw(*p)), lambda: per_second(300, lambda: [naive_sprite(*q, 64, 1) for q in zip(*[v[:300] for v in p], strict=True)]))
    told(f"sprites of 64 × 64: {fast:,.0f} a second on 1 thread, against full frames in NumPy", f"{fast / slow:.0f} ×", "≥ 10 ×", fast >= 10 * slow)
    rooms.geometry(64)
    values = SHAPES3D.values(rng.integers(0, SHAPES3D.count, n))
    for threads in (1, 2):
        torch.set_num_threads(threads)
        rate = float(np.median([per_second(n, lambda: rooms.draw(values)) for _ in range(3)]))
        told(f"rooms of 64 × 64, {threads} thread{'s' * (threads > 1)}", f"{rate:,.0f} a second", "≥ 20,000", rate >= 20_000)
    torch.set_num_threads(1)
    grid = sprites_world().factors
    labels = grid.values(split(grid, "extrapolation", 0.2).train)
    index = {tuple(f): i for i, f in enumerate(labels.tolist())}
    rows = rng.integers(0, len(labels), 32 * 64)  # what 64 steps ask for
    pairs = Pairs(labels, grid.sizes, unordered=(0,))
    fast, slow = interleaved(
        lambda: per_second(10 * len(rows), lambda: [pairs.changed(rows, 1, rng) for _ in range(10)]),
        lambda: per_second(300, lambda: [naive_changed(labels, int(r), 1, rng, grid.sizes, index) for r in rows[:300]]),
    )
    told(f"pairs that differ in one factor: {fast:,.0f} a second, against one at a time with a look-up", f"{fast / slow:.0f} ×", "≥ 100 ×", fast >= 100 * slow)
    fast, slow = interleaved(
        lambda: per_second(10 * len(rows), lambda: [pairs.walked(rows, 1.0, rng) for _ in range(10)]),
        lambda: per_second(300, lambda: [naive_walk(labels, int(r), 1.0, rng, grid.sizes, index) for r in rows[:300]]),
    )
    told(f"Laplace walks: {fast:,.0f} a second, against one at a time with a density a factor", f"{fast / slow:.0f} ×", "≥ 100 ×", fast >= 100 * slow)


def corruptions(told: Told) -> None:
    """All types at severity 3, against a per-picture version of each in NumPy, SciPy and PIL."""
    from elsewhere.images.corruptions import CORRUPTIONS, corrupt

    torch.set_num_threads(1)
    for side in (28, 64):
        x = np.random.default_rng(0).integers(0, 256, (512, 3, side, side), dtype=np.uint8)
        worst, total = (1e9, ""), [0.0, 0.0]
        for name in CORRUPTIONS:
            corrupt(x[:4], name, 3)
            fast, slow = interleaved(lambda name=name, x=x: per_second(512, lambda: corrupt(x, name, 3)), lambda name=name, x=x: per_second(16, lambda: [_one(v, name) for v in x[:16]]))
            worst = min(worst, (fast / slow, name))
            total = [total[0] + 1 / fast, total[1] + 1 / slow]
        told(f"17 corruptions of {side} × {side} at severity 3, all together, against one picture at a time", f"{total[1] / total[0]:.1f} ×", "≥ 5 ×", total[1] >= 5 * total[0])
        told(f"the least of them: {worst[1]}", f"{worst[0]:.1f} ×", "", True)


def _one(picture: np.ndarray, name: str) -> np.ndarray:
    """One picture at severity 3 with the small constants, channel by channel, as the public per-picture versions go."""
    import colorsys

    from PIL import Image
    from scipy import ndimage

    from elsewhere.images.corruptions import disk

    rng = np.random.default_rng(0)
    x = picture.transpose(1, 2, 0) / 255
    h, w = x.shape[:2]
    if name == "gaussian-noise":
        return np.clip(x + rng.normal(size=x.shape, scale=0.08), 0, 1)
    if name == "shot-noise":
        return np.clip(rng.poisson(x * 100) / 100, 0, 1)
    if name == "impulse-noise":
        u = rng.random(x.shape)
        return np.where(u < 0.015, 0, np.where(u < 0.03, 1, x))
    if name == "speckle-noise":
        return np.clip(x + x * rng.normal(size=x.shape, scale=0.12), 0, 1)
    if name == "gaussian-blur":
        return np.stack([ndimage.gaussian_filter(x[..., c], 0.7, mode="nearest") for c in range(3)], 2)
    if name == "defocus-blur":
        kernel = disk(0.5, 0.6).numpy()
        return np.stack([ndimage.correlate(x[..., c], kernel, mode="mirror") for c in range(3)], 2)
    if name == "motion-blur":
        return _smeared(x, 13, 2.0, rng.uniform(-45, 45))
    if name == "snow":
        layer = rng.normal(0.15, 0.3, (h, w, 1))
        layer = _smeared(np.where(layer < 0.55, 0, layer), 21, 4.0, rng.uniform(-135, -45))
        grey = (x @ (0.299, 0.587, 0.114))[..., None]
        return np.clip(0.9 * x + 0.1 * np.maximum(x, 1.5 * grey + 0.5) + layer + layer[::-1, ::-1], 0, 1)
    if name == "zoom-blur":
        total = x.copy()
        for i in range(16):
            part = int(np.ceil(h / (1 + 0.01 * i)))
            top = (h - part) // 2
            total += ndimage.zoom(x[top : top + part, top : top + part], (max(h, round(part * (1 + 0.01 * i))) / part,) * 2 + (1,), order=1)[:h, :w]
        return total / 17
    if name == "fog":
        side, step, wibble = 1 << int(np.ceil(np.log2(h))), 1 << int(np.ceil(np.log2(h))), 100.0
        z = np.zeros((side, side))
        while step >= 2:
            half = step // 2
            corner = z[::step, ::step]
            square = corner + np.roll(corner, -1, 0)
            z[half::step, half::step] = (square + np.roll(square, -1, 1)) / 4 + wibble * rng.uniform(-wibble, wibble, corner.shape)
            middle = z[half::step, half::step]
            z[::step, half::step] = (middle + np.roll(middle, 1, 0) + corner + np.roll(corner, -1, 1)) / 4 + wibble * rng.uniform(-wibble, wibble, corner.shape)
            z[half::step, ::step] = (middle + np.roll(middle, 1, 1) + corner + np.roll(corner, -1, 0)) / 4 + wibble * rng.uniform(-wibble, wibble, corner.shape)
            step, wibble = half, wibble / 2.5
        z = (z - z.min()) / np.ptp(z)
        return (x + 0.75 * z[:h, :w, None]) * x.max() / (x.max() + 0.75)
    if name in ("brightness", "saturate"):
        flat = [colorsys.rgb_to_hsv(*v) for v in x.reshape(-1, 3)]
        back = [colorsys.hsv_to_rgb(a, min(1, b * 1.5) if name == "saturate" else b, min(1, c + 0.15) if name == "brightness" else c) for a, b, c in flat]
        return np.array(back).reshape(x.shape)
    if name == "contrast":
        mean = x.mean((0, 1), keepdims=True)
        return np.clip((x - mean) * 0.4 + mean, 0, 1)
    if name == "elastic":
        field = [ndimage.gaussian_filter(rng.uniform(-1, 1, (h, w)), 0.06 * h, mode="reflect", truncate=3) * 0.08 * h for _ in range(2)]
        at = np.meshgrid(np.arange(h), np.arange(w), indexing="ij")
        return np.stack([ndimage.map_coordinates(x[..., c], [at[0] + field[0], at[1] + field[1]], order=1, mode="reflect") for c in range(3)], 2)
    image = Image.fromarray(picture.transpose(1, 2, 0))
    if name == "pixelate":
        return np.asarray(image.resize((int(w * 0.85), int(h * 0.85)), Image.Resampling.BOX).resize((w, h), Image.Resampling.BOX)) / 255
    if name == "jpeg":
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=58)
        return np.asarray(Image.open(buffer)) / 255
    liquid = ndimage.gaussian_filter(rng.normal(0.65, 0.3, (h, w)), 1)
    return np.clip(x + np.where(liquid < 0.69, 0, liquid)[..., None] * 0.5 * np.array([175, 238, 238]) / 255, 0, 1)


def _smeared(x: np.ndarray, width: int, sigma: float, angle: float) -> np.ndarray:
    from scipy import ndimage

    weight = np.exp(-(np.arange(width) ** 2) / (2 * sigma**2))
    out = np.zeros_like(x)
    for i, v in enumerate(weight / weight.sum()):
        out += v * ndimage.shift(x, (round(i * np.sin(np.radians(angle))), round(i * np.cos(np.radians(angle))), 0), order=0, mode="nearest")
    return out


def groups(told: Told) -> None:
    """Inferred groups in closed form against the reference's 10,000 steps of Adam."""
    from elsewhere.metrics.inferred_groups import inferred_groups

    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(1000, 7)), rng.integers(0, 7, 1000)
    inferred_groups(z, y)
    fast = 1 / np.median([per_second(1, lambda: inferred_groups(z, y)) for _ in range(20)])
    slow = 1 / per_second(1, lambda: inferred_groups(z, y, solver="adam"))
    told(f"inferred groups of 1,000 examples: {1e6 * fast:.0f} µs, against 10,000 steps of Adam ({slow:.1f} s)", f"{slow / fast:,.0f} ×", "≥ 10,000 ×", slow >= 10_000 * fast)


def probes(told: Told) -> None:
    """1,000 linear-probe trials on digits, from data to scores."""
    import elsewhere as ew
    from elsewhere.images.tasks import digits_shifts

    grid = [(b, r, d, n) for b in ("inputs", "random-conv") for r in (1e-3, 3e-3, 1e-2, 3e-2, 1e-1) for d in (0.0, 1e-3, 1e-2, 1e-1) for n in (10, 30, 100, "None", 5)]
    learners = [f"linear-probe:backbone={b},learning_rate={r},weight_decay={d},samples={n}" for b, r, d, n in grid]
    start = time.perf_counter()
    result = ew.assay(digits_shifts.bind(severities=(1, 3, 5), shifts=("rotated", "noisy")), learners=learners, seeds=5, out=Path(tempfile.mkdtemp()) / "r", workers=2)
    seconds = time.perf_counter() - start
    assert len(result.trials()) == 1000
    told("1,000 linear-probe trials on digits, data to scores, 2 workers", f"{seconds / 60:.1f} min", "< 5 min", seconds < 300)


def trial(told: Told) -> None:
    """A minute of a factor trial: images into the network, and a whole trial, against a loader that draws one picture at a time."""
    from elsewhere.images.factor_tasks import sprites
    from elsewhere.images.learners import Cnn
    from elsewhere.run import Run

    torch.set_num_threads(2)
    task = sprites(split="random")
    train = task.source.train
    images, values, largest = np.asarray(train.inputs), train.values, np.array(train.factors.sizes) - 1.0

    class One(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, k: int) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.from_numpy(images[k]).float() / 255, torch.from_numpy(values[k] / largest).float()

    def naive(batch: int, steps: int) -> None:
        torch.manual_seed(0)
        network = Cnn(learning_rate=1e-3).network(train)
        optimizer = torch.optim.Adam(network.parameters(), 1e-3)
        loader = iter(torch.utils.data.DataLoader(One(), batch, sampler=torch.utils.data.RandomSampler(One(), replacement=True, num_samples=batch * steps)))
        for x, y in loader:
            loss = functional.mse_loss(network(x).mean, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    for batch in (4, 128):  # the reference's default, and ours
        steps = 400 if batch == 4 else 60
        fast, slow = interleaved(
            lambda b=batch, s=steps: per_second(b * s, lambda: Cnn(steps=s, batch=b, learning_rate=1e-3).fit(task.source, Run(progress=False))),
            lambda b=batch, s=steps: per_second(b * s, lambda: naive(b, s)),
        )
        told(f"training images a second, batches of {batch}: {fast:,.0f} against a loader of single items", f"{fast / slow:.2f} ×", "≥ 1 ×", fast >= slow)
    fast, slow = interleaved(
        lambda: per_second(12_000, lambda: Cnn(steps=94, batch=128, learning_rate=1e-3).fit(task.source, Run(progress=False))), lambda: per_second(12_000, lambda: naive(4, 3000)), repeats=1
    )
    told("an epoch of sprites, batches of 128 against the reference's loader with its default batch of 4", f"{fast / slow:.1f} ×", "≥ 3 ×", fast >= 3 * slow)


def seeds(told: Told) -> None:
    """Four seeds of a small network at once by ``torch.func.vmap``, against one after the other: measured, not assumed."""
    from torch.func import functional_call, grad, stack_module_state, vmap

    from elsewhere.nn import build

    torch.set_num_threads(2)
    networks = [build("encoder", shape=[1, 32, 32], values=5) for _ in range(4)]
    parameters, buffers = stack_module_state(networks)
    x, y = torch.rand(4, 128, 1, 32, 32), torch.rand(4, 128, 5)

    def loss(p: dict, b: dict, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return functional.mse_loss(functional_call(networks[0], (p, b), (x,)).mean, y)

    together = vmap(grad(loss), in_dims=(0, 0, 0, 0))

    def one_by_one() -> None:
        for k, network in enumerate(networks):
            network.zero_grad()
            functional.mse_loss(network(x[k]).mean, y[k]).backward()

    together(parameters, buffers, x, y)
    fast, slow = interleaved(lambda: per_second(20, lambda: [together(parameters, buffers, x, y) for _ in range(20)]), lambda: per_second(20, lambda: [one_by_one() for _ in range(20)]))
    told("4 seeds of a small CNN in one vmap against one after the other (not used where below 1)", f"{fast / slow:.2f} ×", "", True)


def photos(folder: Path, each: int = 60) -> Path:
    """Write three domains (as they are, in fog, flat) of three kinds of small photographs as files."""
    import os

    from PIL import Image

    from elsewhere.images.corruptions import corrupt
    from elsewhere.images.sets import parquet_set

    whole = parquet_set(Path(os.environ["ELSEWHERE_DATA"]) / "cifar10-small" / "train.parquet")
    for d, (name, severity) in enumerate((("contrast", 4), ("fog", 4), ("plain", 0))):
        for k in range(3):
            mine = whole.inputs[np.flatnonzero(whole.labels == k)[d * each : (d + 1) * each]]
            x = mine if not severity else np.round(255 * corrupt(mine, name, severity)).astype(np.uint8)
            place = folder / name / str(k)
            place.mkdir(parents=True)
            for i, picture in enumerate(x):
                Image.fromarray(picture.transpose(1, 2, 0)).resize((96, 96)).save(place / f"{i}.jpg")
    return folder


def folders(told: Told) -> None:
    """A folder of pictures beside DomainBed's way: one trial, domain left out, small CNN and frozen ResNet-18."""
    folder = photos(Path(tempfile.mkdtemp()) / "photos")
    ours = "import sys, time; s = time.perf_counter(); import elsewhere as ew, torch; torch.set_num_threads(1)\n"
    ours += "from elsewhere.images.folders import image_folder\n"
    ours += "r = ew.assay(image_folder.bind(path=sys.argv[1], side=32, leave_out='contrast', home_share=.2), learners=[sys.argv[2]], seeds=1, out=sys.argv[3])\n"
    ours += "v = r.scores().query('metric == \"accuracy\"').set_index('domain').value\nprint(time.perf_counter() - s, v['contrast'])"

    def run(learner: str) -> tuple[float, float]:
        out = subprocess.run([sys.executable, "-c", ours, str(folder), learner, str(Path(tempfile.mkdtemp()) / "r")], capture_output=True, text=True, check=True)
        seconds, there = out.stdout.split()[-2:]
        return float(seconds), float(there)

    def theirs(kind: str, steps: int, every: int) -> tuple[float, float]:
        out = subprocess.run([sys.executable, str(HERE / "domainbed_folders.py"), str(folder), kind, str(steps), str(every)], capture_output=True, text=True, check=True)
        found = json.loads(out.stdout)
        return found["seconds"], float(np.mean(found["there"]))

    for kind, steps, learner in (
        ("cnn", 60, "erm:backbone=small-cnn,width=64,batch=32,steps=60,schedule=constant"),
        ("resnet", 40, "linear-probe:backbone=torchvision:resnet18,batch=64,steps=40,learning_rate=0.001,schedule=constant"),
    ):
        equal, habit = [], []
        for _ in range(1):
            mine, here = run(learner)
            once, there = theirs(kind, steps, steps)
            often, _ = theirs(kind, steps, max(1, steps * 300 // 5001))
            equal.append(once / mine)
            habit.append(often / mine)
        name = "small CNN" if kind == "cnn" else "frozen ResNet-18"
        told(
            f"folder of pictures, {name}, {steps} steps: evaluated once, against DomainBed's way ({here:.2f} and {there:.2f} right)", f"{np.median(equal):.1f} ×", "≥ 1 ×", bool(np.median(equal) >= 1)
        )
        told("the same, evaluated as often as DomainBed does (every 300 of 5,001 steps)", f"{np.median(habit):.1f} ×", "≥ 3 ×", bool(np.median(habit) >= 3))
        if kind == "cnn":
            mine, here = run("erm:batch=32,steps=60,learning_rate=0.005,width=16")  # a small network of the default kind
            told(f"our small CNN, {here:.2f} right, against DomainBed's protocol", f"{often / mine:.1f} ×", "≥ 3 ×", often >= 3 * mine)
