"""Groups, optimisers, timetable, averages: the parts below the loop."""

import copy

import pytest
import torch
from torch import nn

from detc.compiler.spec import GroupRule, Quantity, Rate, Switch
from detc.dsl.diagnostics import DetError
from detc.runtime.train.ema import WeightAverage
from detc.runtime.train.fit import share_of_batch
from detc.runtime.train.groups import matched_paths, parameter_groups, spec_name
from detc.runtime.train.optim import build_optimizer
from detc.runtime.train.schedule import make_clock, make_timetable
from detc.runtime.train.schema import EMA, SGD, Adam, AdamW, Clock

from .fakes import Net, recipe

NAMES = [
    "backbone.conv.weight",
    "backbone.norm.weight",
    "backbone.norm.bias",
    "head.norm.0.1.bias",
    "head.cls.bias",
]


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("backbone", NAMES[:3]),
        ("**.norm", NAMES[1:4]),
        ("**.bias", NAMES[2:]),
        ("head.norm[0, 1]", [NAMES[3]]),
        ("head.norm[0, 2]", []),
        ("norm", []),
        ("**", NAMES),
    ],
)
def test_selectors(selector, found):
    assert matched_paths(selector, NAMES) == found


def test_names_as_specs_write_them():
    assert spec_name("head.norm.0.1.weight") == "head.norm[0, 1].weight"
    assert spec_name("conv1.weight") == "conv1.weight"


def test_later_rules_win_field_by_field():
    rules = [
        GroupRule("**.norm", {"weight_decay": 0.0}),
        GroupRule("backbone", {"lr_scale": 0.1}),
        GroupRule("backbone.norm.bias", {"lr_scale": 2.0}),
    ]
    groups = {tuple(g["names"]): g for g in parameter_groups(Net(), rules)}
    assert groups[("backbone.norm.weight",)]["lr_scale"] == 0.1
    assert groups[("backbone.norm.weight",)]["weight_decay"] == 0.0
    assert groups[("backbone.norm.bias",)]["lr_scale"] == 2.0
    assert groups[("backbone.norm.bias",)]["weight_decay"] == 0.0
    assert "weight_decay" not in groups[("backbone.conv.weight",)]
    assert sum(len(g["params"]) for g in groups.values()) == len(list(Net().parameters()))


def test_parameters_with_the_same_fields_share_a_group():
    rules = [GroupRule("**.norm", {"weight_decay": 0.0}), GroupRule("**.bias", {"weight_decay": 0.0})]
    assert len(parameter_groups(Net(), rules)) == 2


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (GroupRule("bakcbone", {"lr_scale": 0.1}), "matches no parameter; did you mean `backbone`"),
        (GroupRule("backbone", {"lr_scal": 0.1}), "has no field `lr_scal`; did you mean `lr_scale`"),
    ],
)
def test_a_rule_that_does_nothing_is_an_error(rule, words):
    with pytest.raises(DetError) as caught:
        parameter_groups(Net(), [rule])
    assert caught.value.diagnostics[0].code == "DET0702"
    assert words in caught.value.diagnostics[0].message


def test_a_rule_on_frozen_parameters_changes_nothing():
    net = Net()
    net.backbone.requires_grad_(False)
    assert len(parameter_groups(net, [GroupRule("backbone", {"lr_scale": 0.1})])) == 1


def test_frozen_groups_leave_training():
    net = Net()
    groups = parameter_groups(net, [GroupRule("backbone", {"frozen": True})])
    assert not net.backbone.conv.weight.requires_grad
    assert all(not n.startswith("backbone") for g in groups for n in g["names"])


def test_rate_follows_the_batch_and_groups_scale_it():
    rules = (GroupRule("backbone", {"lr_scale": 0.1}), GroupRule("head.cls", {"lr": 0.03}))
    spec = recipe(optim=SGD(lr=Rate(0.02, Quantity(16, "img")), momentum=0.9), batch=32, groups=rules)
    optimizer = build_optimizer(spec, Net(), torch.device("cpu"))
    scales = sorted(g.get("lr_scale", 1.0) for g in optimizer.param_groups)
    assert scales == pytest.approx([0.1, 0.03 / 0.04, 1.0])
    assert all(g["lr"] == pytest.approx(0.04) for g in optimizer.param_groups)


@pytest.mark.parametrize("optim", [SGD(lr=0.1, momentum=0.9), Adam(lr=0.1), AdamW(lr=0.1, weight_decay=0.05)])
def test_fused_steps_equal_plain_torch(optim):
    torch.manual_seed(0)
    ours, theirs = Net(), Net()
    theirs.load_state_dict(ours.state_dict())
    fused = build_optimizer(recipe(optim=optim), ours, torch.device("cpu"))
    kind = getattr(torch.optim, type(optim).__name__)
    plain = kind(
        theirs.parameters(), lr=0.1, weight_decay=optim.weight_decay, foreach=False, **optim.options()
    )
    for _ in range(3):
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        fused.step()
        plain.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_everything_frozen_is_an_error():
    net = Net().requires_grad_(False)
    with pytest.raises(DetError, match="every parameter of the model is frozen"):
        build_optimizer(recipe(), net, torch.device("cpu"))


def test_batch_must_divide():
    assert share_of_batch(recipe(batch=16, accumulate=2), processes=4) == 2
    with pytest.raises(DetError, match="does not divide"):
        share_of_batch(recipe(batch=6), processes=4)


def test_timetable_validates_more_often_after_the_switch():
    spec = recipe(
        epochs=Quantity(30, "ep"),
        validate_every=Quantity(10, "ep"),
        validate_late=Quantity(1, "ep"),
        switches=(Switch(Quantity(27, "ep"), "data.active", "late"),),
    )
    table = make_timetable(spec, make_clock(spec.epochs, 4))
    assert [d // 4 for d in range(1, 121) if table.validates(d)] == [10, 20, 28, 29, 30]
    assert table.value("data.active", "train", 107) == "train"
    assert table.value("data.active", "train", 108) == "late"
    assert table.next_switch(0) == 108
    assert table.next_switch(108) == 120


def test_only_switchable_paths_switch():
    spec = recipe(switches=(Switch(Quantity(1, "ep"), "model.depth", 3),))
    with pytest.raises(DetError, match="cannot change during training"):
        make_timetable(spec, make_clock(spec.epochs, 4))


def test_average_equals_its_formula_and_swaps_in_place():
    net = Net()
    net.head.cls.requires_grad_(False)
    hook, clock = EMA(momentum=0.1, warmup="none"), Clock(5, 50)
    average = WeightAverage(net, hook, clock)
    expected = {n: t.clone() for n, t in average.live.items()}
    for _ in range(4):
        with torch.no_grad():
            for p in net.parameters():
                p.add_(torch.randn_like(p))
        net.backbone.norm.running_mean.add_(1.0)
        average.update()
        for name, tensor in expected.items():
            expected[name] = tensor + 0.1 * (average.live[name] - tensor)
    assert "head.cls.weight" not in expected
    for name, tensor in expected.items():
        torch.testing.assert_close(average.average[name], tensor)
    live = copy.deepcopy(net.state_dict())
    with average.in_place():
        torch.testing.assert_close(net.backbone.conv.weight.data, expected["backbone.conv.weight"])
        torch.testing.assert_close(net.backbone.norm.running_mean, expected["backbone.norm.running_mean"])
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, live[name])


def test_average_of_a_module_with_shared_weights_counts_them_once():
    net = nn.Module()
    net.a = nn.Linear(2, 2)
    net.b = net.a
    average = WeightAverage(net, EMA(momentum=0.5, warmup="none"), Clock(1, 1))
    assert len(average.average) == 2
