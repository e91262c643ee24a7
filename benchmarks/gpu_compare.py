"""Other ways to run the forward pass than torch's eager mode, for `benchmarks/gpu.sh`."""

import copy
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from time import perf_counter
from typing import Any

import torch

from benchmarks.gpu_measures import Bench, evaluated, forward_alone
from benchmarks.gpu_timing import interleaved, median_ratio, repeated, synchronise


def compare(bench: Bench) -> None:
    """The eager forward pass beside CUDA graphs, torch.compile and weights that are cast once; the first precision only."""
    precision, module = bench.precisions[0], bench.modules.image
    eager, batches = forward_alone(bench, precision), bench.resident(bench.batch)
    reference = eager(batches[0]).clone()
    baseline = repeated(bench.device, bench.seconds / 4, eager, batches)
    ways: dict[str, Callable[[], Callable[[torch.Tensor], torch.Tensor]]] = {
        "CUDA graph of the eager pass": lambda: graphed(eager, batches[0]),
        "bf16 weights, no autocast": lambda: evaluated(_cast(module), bench.device, "fp32"),
        "bf16 weights, CUDA graph": lambda: graphed(evaluated(_cast(module), bench.device, "fp32"), batches[0]),
        "torch.compile": lambda: evaluated(torch.compile(module), bench.device, precision),
        "torch.compile, reduce-overhead": lambda: evaluated(
            torch.compile(module, mode="reduce-overhead"), bench.device, precision
        ),
        "bf16 weights, torch.compile": lambda: evaluated(torch.compile(_cast(module)), bench.device, "fp32"),
    }

    def way(build: Callable[[], Callable[[torch.Tensor], torch.Tensor]]) -> Sequence[Any]:
        begun = perf_counter()
        call = build()
        vectors = call(batches[0]).clone()
        call(batches[0])
        synchronise(bench.device)
        compiling_s = perf_counter() - begun
        works = {"eager": baseline, "way": repeated(bench.device, bench.seconds / 4, call, batches)}
        rates = interleaved(bench.device, bench.rounds, works)
        middle = (f"{statistics.median(values):,.0f}" for values in rates.values())
        cosine = float((vectors.double() * reference.double()).sum(1).min())
        return f"{compiling_s:.1f}", *middle, f"{median_ratio(rates['way'], rates['eager']):.2f}", f"{cosine:.6f}"

    with _tuned_convolutions():
        bench.rows.measure("compile", [bench.name, precision, "cudnn.benchmark"], partial(way, lambda: eager))
    for name, build in ways.items():  # the compiler, which takes the longest, last
        torch.compiler.reset()
        bench.rows.measure("compile", [bench.name, precision, name], partial(way, build))


def graphed(call: Callable[[torch.Tensor], torch.Tensor], example: torch.Tensor) -> Callable[..., torch.Tensor]:
    """Capture the kernels of `call` once and replay them: no Python between kernels.  Smaller batches are padded."""
    pixels, side = example.clone(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call(pixels)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        vectors = call(pixels)

    @torch.inference_mode()
    def replay(batch: torch.Tensor) -> torch.Tensor:
        pixels[: len(batch)].copy_(batch)
        graph.replay()
        return vectors[: len(batch)]

    return replay


def _cast(module: torch.nn.Module) -> torch.nn.Module:
    """A copy of a tower with bfloat16 weights: pixels are normalised in float32, rows scaled to length 1 in float32."""

    class ToHalf(torch.nn.Module):
        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return values.to(torch.bfloat16)

    cast: Any = copy.deepcopy(module)
    channels, normalise, *layers = cast.steps
    halves = [layer.to(torch.bfloat16) for layer in layers]
    cast.steps = torch.nn.Sequential(channels, normalise, ToHalf(), *halves)
    tower: torch.nn.Module = cast
    return tower


@contextmanager
def _tuned_convolutions() -> Iterator[None]:
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = False
