"""The loop: it is the textbook's update, deterministic, and its random choices depend on (seed, epoch) alone."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import striate
from striate import datasets, feeding, machine, optimizing
from striate.datasets import Normalisation
from striate.errors import CheckpointError, OptionError, TrainingError
from striate.options import options_of
from striate.training import Trainer, counts_of

from .test_datasets import paint_split

TEXT = "INPUT 1x8x8 -> CONV 3x3x4 -> RELU -> POOL -> FC 3"


def trainer(data: Any, text: str = TEXT, **given: Any) -> Trainer:
    options = options_of({"epochs": 3, "batch_size": 32, **given})
    with feeding.randomness(options.seed, -1):
        network = striate.network(text)
    return Trainer(network, data, Normalisation.of(data.train.inputs), options, [])


def quiet(done: int, total: int, what: str) -> None:
    return None


@pytest.mark.parametrize("batch_size", [1, 32, "full"])
@pytest.mark.parametrize("loss", ["softmax", "svm"])
def test_an_epoch_of_plain_gradient_descent_is_the_update_of_the_book(bars: Any, batch_size: Any, loss: str) -> None:
    """W <- W - rate * mean gradient, batch by batch, written with torch functions only."""
    given: dict[str, Any] = {
        "batch_size": batch_size,
        "optimizer": "sgd",
        "schedule": "constant",
        "learning_rate": 0.01,
        "loss": loss,
    }
    ours = trainer(bars, **given, weight_decay=0.0)
    w = {name: p.detach().clone().requires_grad_() for name, p in ours.network.named_parameters()}
    ours.epoch(quiet)
    with feeding.randomness(0, 0):
        order = torch.randperm(180)
    pixels = Normalisation.of(bars.train.inputs)(bars.train.inputs)
    for batch in order.split(180 if batch_size == "full" else batch_size):
        maps = F.max_pool2d(F.conv2d(pixels[batch], w["conv1.weight"], w["conv1.bias"], padding=1).relu(), 2)
        scores, y = F.linear(maps.flatten(1), w["fc1.weight"], w["fc1.bias"]), bars.train.targets[batch]
        if loss == "softmax":
            value = -(scores.log_softmax(1).gather(1, y[:, None])).mean()
        else:
            margins = (scores - scores.gather(1, y[:, None]) + 1).clamp(min=0).scatter(1, y[:, None], 0)
            value = margins.sum(1).mean()
        gradients = torch.autograd.grad(value, list(w.values()))
        with torch.no_grad():
            for p, g in zip(w.values(), gradients, strict=True):
                p -= 0.01 * g
    for name, p in ours.network.named_parameters():
        torch.testing.assert_close(p, w[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["adamw", "momentum", "sgd"])
def test_every_optimizer_learns(bars: Any, optimizer: str) -> None:
    ours = trainer(bars, optimizer=optimizer, epochs=8, batch_size=16)
    for _ in range(8):
        ours.epoch(quiet)
    assert ours.history[-1]["accuracy"] > 0.85
    assert ours.history[-1]["train_loss"] < ours.history[0]["train_loss"] / 2


def test_bfloat16_learns_too(bars: Any) -> None:
    ours = trainer(bars, precision="bfloat16", epochs=8, batch_size=16)
    for _ in range(8):
        ours.epoch(quiet)
    assert ours.history[-1]["accuracy"] > 0.85


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(bars: Any) -> None:
    def weights(seed: int) -> torch.Tensor:
        ours = trainer(bars, seed=seed)
        torch.rand(7)
        for _ in range(2):
            ours.epoch(quiet)
        return torch.cat([p.detach().flatten() for p in ours.network.parameters()])

    first, again, other = weights(3), weights(3), weights(4)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_figures_of_an_epoch_are_means_over_its_examples(bars: Any) -> None:
    """With a learning rate of almost zero the mean over the epoch is the loss of the fixed network."""
    ours = trainer(bars, learning_rate=1e-30, optimizer="sgd", schedule="constant", weight_decay=0.0, batch_size=50)
    ours.epoch(quiet)
    fixed = ours.classifier.evaluate(bars.train)
    assert ours.history[0]["train_loss"] == pytest.approx(fixed.loss, rel=1e-5)
    assert ours.history[0]["train_accuracy"] == pytest.approx(fixed.accuracy)
    test = ours.classifier.evaluate(bars.test)
    assert (ours.history[0]["loss"], ours.history[0]["accuracy"]) == (test.loss, test.accuracy)


def test_progress_counts_the_steps(bars: Any) -> None:
    seen: list[tuple[int, int, str]] = []
    trainer(bars, batch_size=100).epoch(lambda *step: seen.append(step))
    assert [(done, total) for done, total, _ in seen] == [(1, 2), (2, 2)]
    assert all(re.fullmatch(r"epoch 1 of 3, loss [0-9.]+, [0-9,]+ pictures/s", what) for _, _, what in seen)


@pytest.mark.parametrize(
    ("text", "rate", "became"), [(TEXT, 1e30, "nan"), ("INPUT 1x8x8 -> FC 3", 1e6, r"[0-9.]+e\+[0-9]+")]
)
def test_a_loss_that_runs_away_stops_with_advice(bars: Any, text: str, rate: float, became: str) -> None:
    ours = trainer(bars, text, optimizer="sgd", learning_rate=rate, schedule="constant")
    with pytest.raises(TrainingError) as caught:
        ours.epoch(quiet)
    assert re.fullmatch(
        rf"the loss became {became} in epoch 1 \(guessing would give 1\.1\): "
        rf"learning_rate={re.escape(f'{rate:g}')} is too high for this network; "
        rf"try {re.escape(f'{rate / 10:g}')}, or learning_rate=find\.",
        str(caught.value),
    )
    assert ours.history == []


def test_an_unknown_device() -> None:
    with pytest.raises(OptionError) as caught:
        machine.device("gpu0")
    assert str(caught.value).startswith("device='gpu0' cannot be used here: ")


def test_optimizer_state_of_another_network_is_refused(bars: Any) -> None:
    ours = trainer(bars)
    ours.epoch(quiet)
    state = optimizing.state(ours.optimizer)
    optimizing.restore(ours.optimizer, state)
    for wrong in ({"0/exp_avg": torch.zeros(5)}, {"17/step": torch.zeros(())}, {"x/step": torch.zeros(())}):
        with pytest.raises(CheckpointError, match="fits no parameter"):
            optimizing.restore(ours.optimizer, wrong)


def test_auxiliary_outputs_weigh_three_tenths(bars: Any) -> None:
    """Szegedy et al. 2014, section 5: the losses of the auxiliary classifiers are weighted by 0.3."""
    ours = trainer(bars, text="INPUT 1x8x8 -> AUX[FC 3] -> FC 3", batch_size="full", optimizer="sgd",
                   schedule="constant", learning_rate=0.01, weight_decay=0.0)  # fmt: skip
    before = {name: p.detach().clone().requires_grad_() for name, p in ours.network.named_parameters()}
    ours.epoch(quiet)
    pixels = Normalisation.of(bars.train.inputs)(bars.train.inputs).flatten(1)
    losses = [
        F.cross_entropy(F.linear(pixels, before[f"{name}.weight"], before[f"{name}.bias"]), bars.train.targets)
        for name in ("fc2", "fc1")
    ]
    gradients = torch.autograd.grad(losses[0] + 0.3 * losses[1], list(before.values()))
    for (name, old), gradient in zip(before.items(), gradients, strict=True):
        new = dict(ours.network.named_parameters())[name]
        torch.testing.assert_close(new, old - 0.01 * gradient, rtol=1e-4, atol=1e-6)


def test_a_large_loss_of_young_running_statistics_is_no_reason_to_stop(bars: Any) -> None:
    ours = trainer(bars, "INPUT 1x8x8 -> CONV 3x3x32 -> BN -> RELU -> FC 3", epochs=3)
    network = ours.classifier.network
    network.register_forward_pre_hook(lambda module, given: (given[0] * (1.0 if module.training else 1e6),))
    ours.epoch(quiet)
    assert ours.history[0]["loss"] > 1000 * math.log(3)


def test_classes_of_files_are_counted_without_reading_them(tmp_path: Path) -> None:
    paint_split(tmp_path)
    data = datasets.load(tmp_path, stream=True)
    expected = data.train.targets.bincount().tolist()
    for file in tmp_path.rglob("*.png"):
        file.unlink()
    assert counts_of(data) == expected
