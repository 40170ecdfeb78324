"""The stand-in for a GPU notices what a GPU would refuse or wait for."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.stand_in_gpu import StandIn


@pytest.fixture
def gpu():
    with StandIn() as stand_in:
        yield stand_in


def test_what_comes_of_its_tensors_is_its_own(gpu):
    """Results, views, copies, gradients, what modules and optimizers hold, and new tensors that
    name it; a copy on the host is the host's."""
    x = torch.randn(4, 3).to("cuda")
    layer = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).to("cuda")
    layer(x).square().sum().backward()
    optimizer = torch.optim.Adam(layer.parameters())
    optimizer.step()
    moments = [v["exp_avg"] for v in optimizer.state.values()]
    copies = copy.deepcopy(layer).state_dict().values()
    there = [
        x[1:],
        x.T,
        x.sum(),
        x > 0,
        x.topk(2).indices,
        x.new_zeros(2),
        torch.zeros_like(x),
        torch.arange(3, device=x.device),
        F.one_hot(torch.arange(3).to("cuda"), 4),
        x.to(torch.float64),
        x.double().to("cuda"),
        *layer.parameters(),
        *(p.grad for p in layer.parameters()),
        *layer.buffers(),
        *moments,
        *copies,
        *nn.Linear(2, 2).to(x).parameters(),
    ]
    assert all(gpu.has(one) and one.device.type == "cuda" and one.is_cuda for one in there)
    here = [x.cpu(), x.to("cpu", torch.float64), torch.arange(3), torch.randn(2).double()]
    assert not any(gpu.has(one) or one.is_cuda for one in here)
    assert x.to("cuda") is x and here[2].cpu() is here[2]


def test_gradients_cross_between_devices(gpu):
    own = torch.ones(3, requires_grad=True)
    (own.to("cuda") * 2).sum().backward()
    assert own.grad.tolist() == [2, 2, 2] and own.grad.device.type == "cpu"


MISTAKES = {
    "a sum": lambda x, y: x + y,
    "a product": lambda x, y: x @ y.T,
    "joining": lambda x, y: torch.cat([x, y]),
    "a place on the device in a tensor of the host": lambda x, y: y[torch.zeros_like(x).long()[0]],
    "a value of the host": lambda x, y: x.index_put_((torch.tensor([0]),), y[:1]),
    "an own number beside the host's": lambda x, y: y * x.sum(),
    "a mask": lambda x, y: x.masked_fill(y > 0, 0),
    "a layer": lambda x, y: nn.Linear(3, 2)(x),
    "NumPy": lambda x, y: x.numpy(),
    "NumPy's functions": lambda x, y: __import__("numpy").sort(x),
    "a generator of the host": lambda x, y: torch.rand(
        2, device="cuda", generator=torch.Generator()
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_refused(gpu, mistake):
    with pytest.raises((RuntimeError, TypeError), match=r"cuda|device"):
        mistake(torch.ones(4, 3).to("cuda"), torch.ones(4, 3))


def test_what_a_gpu_allows_is_allowed(gpu):
    """Numbers of the host, copies between devices, and places of the host in a tensor of its."""
    x = torch.ones(4, 3).to("cuda")
    x += torch.tensor(2.0)
    x[0] = torch.zeros(3)
    x.copy_(torch.ones(4, 3))
    assert x[torch.tensor([1, 2])].cpu().tolist() == [[1, 1, 1]] * 2
    assert torch.ones(4, 3).copy_(x).device.type == "cpu"


WAITS = {
    "item": lambda x: x.sum().item(),
    "bool": lambda x: bool((x > 0).any()),
    "if": lambda x: 1 if x[0] > 0 else 0,
    "tolist": lambda x: x.tolist(),
    "a copy": lambda x: x.cpu(),
    "nonzero": lambda x: x.nonzero(),
    "a mask": lambda x: x[x > 0],
    "writing by a mask": lambda x: x.__setitem__(x > 0, x + 1),
    "unique": lambda x: x.unique(),
    "equal": lambda x: torch.equal(x, x),
    "repeats": lambda x: x.repeat_interleave(x.long()),
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_waiting_is_noticed(gpu, wait):
    wait(torch.ones(4).to("cuda"))
    assert gpu.waits.total() >= 1


def test_other_work_does_not_wait(gpu):
    x = torch.rand(4, 3).to("cuda").requires_grad_()
    y = torch.where(x > 0.5, x, 0).sort(dim=1).values.cumsum(1)
    (F.cross_entropy(y, torch.zeros(4, dtype=torch.int64, device=x.device)) + x.amax()).backward()
    places = torch.arange(4, device=x.device)
    places.repeat_interleave(torch.full_like(places, 2), output_size=8)
    assert not gpu.waits


def test_its_memory_ends():
    with StandIn(room=100) as gpu:
        x = torch.zeros(10).to("cuda")
        with pytest.raises(torch.OutOfMemoryError):
            x[:, None] + x
        with pytest.raises(torch.OutOfMemoryError):
            torch.zeros(26, device="cuda")
        assert gpu.refused == 2
        torch.zeros(1000)
