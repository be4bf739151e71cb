"""The reader of compiled programs, on programs by hand and on one that XLA compiled here."""

import jax
import numpy as np
import pytest

from jaxcoder import sharding, steps
from jaxcoder.losses import LossOptions
from jaxcoder.models.coder import CoderOptions
from jaxcoder.models.encoder import EncoderOptions
from jaxcoder.models.label_attention import HeadOptions
from jaxcoder.optim import OptimOptions
from launch import hlo

# A loop of 5 turns (2 to 7), each with a reduction, around one of 3; a gather from its start to its
# end in three fusions; a reduction of which each chip keeps a part; and a send to another slice.
BY_HAND = """\
HloModule jit_step, is_scheduled=true, num_partitions=16

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  ROOT %sum = f32[] add(%x, %y)
}

%inner_less (p: (u32[], f32[8])) -> pred[] {
  %limit = u32[]{:T(128)} constant(3)
  %p = (u32[], f32[8]{0}) parameter(0)
  %at = u32[]{:T(128)} get-tuple-element(%p), index=0
  ROOT %less = pred[] fusion(%at, %limit), kind=kLoop, calls=%fused_less
}

%fused_less (a: u32[], b: u32[]) -> pred[] {
  %a = u32[] parameter(0)
  %b = u32[] parameter(1)
  ROOT %less.1 = pred[] compare(%a, %b), direction=LT
}

%inner_body (p: (u32[], f32[8])) -> (u32[], f32[8]) {
  %kernel = f32[8]{0} custom-call(%p), frontend_attributes={
"metadata":"{\\"block\\": 128}"
}}, backend_config={"estimated_cycles":"10"}
  ROOT %t = (u32[], f32[8]{0}) tuple(%i, %kernel)
}

%less (p: (bf16[4], s32[])) -> pred[] {
  %limit = s32[] constant(7)
  %at = s32[] get-tuple-element(%p), index=1
  ROOT %lt = pred[] compare(%at, %limit), direction=LT
}

%body (p: (bf16[4], s32[])) -> (bf16[4], s32[]) {
  %all-reduce.1 = (bf16[4,100]{1,0:T(8,128)(2,1)}, /*index=1*/f32[2]{0}) all-reduce(%a, %b), \
channel_id=1, replica_groups=mesh['axis_0'=4,'axis_1'=4], device_ids=([4,4]T(1,0)) {'axis_1'}, \
to_apply=%add
  %none = u32[] constant(0)
  %state = (u32[], f32[8]{0}) tuple(%none, %zeros)
  %while.2 = (u32[], f32[8]{0}) while(%state), condition=%inner_less, body=%inner_body
  %work = f32[8]{0} fusion(%x), kind=kLoop, calls=%add, backend_config={"estimated_cycles":"100"}
  ROOT %t = (bf16[4], s32[]) tuple(%y, %i)
}

%begins (p: f32[4]) -> (f32[4], f32[16]) {
  %all-gather.1 = f32[16]{0} all-gather(%p), channel_id=2, replica_groups=[4,4]<=[16]
}

%ends (p: f32[4]) -> f32[16] {
  %all-gather.2 = f32[16]{0} all-gather(%p), channel_id=2, replica_groups=[4,4]<=[16]
}

%all-reduce-scatter.3 (p: f32[64]) -> f32[16] {
  %all-reduce.9 = f32[64]{0} all-reduce(%p), channel_id=3, replica_groups={{0,1,2,3},{4,5,6,7}}, \
to_apply=%add
}

ENTRY %main (p0: f32[4]) -> f32[4] {
  %two = s32[] constant(2)
  %copied = s32[] copy(%two)
  %start = (bf16[4], s32[]) tuple(%p0, %copied)
  %while.1 = (bf16[4], s32[]) while(%start), condition=%less, body=%body
  %gathering = (f32[4], f32[16]) fusion(%p0), kind=kCustom, calls=%begins
  %gathered = f32[16]{0} fusion(%gathering), kind=kCustom, calls=%ends
  %part = f32[16]{0} fusion(%q), kind=kCustom, calls=%all-reduce-scatter.3
  %send.1 = (bf16[50]{0}, u32[], token[]) send(%x, %after), channel_id=4, is_host_transfer=true, \
frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime"}
  ROOT %end = f32[4]{0} fusion(%p0), kind=kLoop, calls=%add, backend_config={"estimated_cycles":"1"}
}
"""


def test_everything_counts_as_often_as_it_runs():
    program = hlo.read(BY_HAND)
    assert (sorted(program.loops), program.unknown_loops) == ([3, 5], 0)
    assert program.cycles == 1 + 5 * (100 + 3 * 10)
    assert set(program.collectives) == {
        hlo.Collective("all-reduce", "bf16", 4, 4 * 100 * 2 + 2 * 4, 5),
        hlo.Collective("all-gather", "f32", 4, 64, 1),  # once, though two fusions hold it
        hlo.Collective("reduce-scatter", "f32", 4, 256, 1),
        hlo.Collective(hlo.BETWEEN_SLICES, "bf16", 2, 100, 1),
    }


def test_what_goes_over_the_wire():
    def sent(kind):
        return hlo.Collective(kind, "f32", 4, 1000, 3).wire

    assert sent("all-reduce") == 2 * sent("reduce-scatter") == 2 * sent("all-gather") == 4500
    assert sent(hlo.BETWEEN_SLICES) == 3000


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("constant(7)", "get-tuple-element(%p), index=0"),
        ("copy(%two)", "add(%two, %two)"),
        ("direction=LT\n}\n\n%body", "direction=NE\n}\n\n%body"),
    ],
)
def test_a_loop_of_unknown_length_is_counted_as_such(old, new):
    assert old in BY_HAND
    program = hlo.read(BY_HAND.replace(old, new))
    assert program.unknown_loops == 1
    assert program.loops == (3,)


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("{{0,1},{2,3}}", 2),
        ("[2,8]<=[16]", 8),
        ("[4,4]<=[4,4]T(1,0)", 4),
        ("{}", 16),
        ("mesh['axis_0'=2,'axis_1'=8] {'axis_0','axis_1'}", 16),
        ("mesh['axis_0'=16] {'axis_0':(2)4}", 4),
    ],
)
def test_groups_in_every_form(groups, size):
    program = hlo.read(BY_HAND.replace("{{0,1,2,3},{4,5,6,7}}", groups))
    assert [each.group for each in program.collectives if each.payload == 256] == [size]


def test_what_cannot_be_read_is_refused():
    with pytest.raises(ValueError, match="no ENTRY computation"):
        hlo.read("HloModule nothing")
    with pytest.raises(ValueError, match="groups of devices in a form"):
        hlo.read(BY_HAND.replace("{{0,1,2,3},{4,5,6,7}}", "<new>"))


@pytest.mark.parametrize("layers", [2, 6])  # unrolled, and as a loop
def test_data_parallel_training_reduces_each_gradient_once(layers):
    encoder = EncoderOptions(vocab_size=40, width=32, layers=layers, heads=2, window=8)
    its = steps.make_steps(
        sharding.make_mesh(),
        CoderOptions(encoder, HeadOptions(num_labels=16)),
        LossOptions(),
        OptimOptions(),
    )
    batch = {
        "tokens": np.zeros((8, 16), np.int32),
        "length": np.ones(8, np.int32),
        "labels": np.zeros((8, 2), np.int32),
        "_mask": np.ones(8, bool),
    }
    program = hlo.read(its.train.lower(its.state_shapes, batch).compile().as_text())
    assert not program.unknown_loops
    reduced = sum(each.payload * each.times for each in program.collectives)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(its.state_shapes.params))
    assert {each.kind for each in program.collectives} == {"all-reduce"}
    assert {each.group for each in program.collectives} == {8}
    assert reduced == pytest.approx(4 * parameters, rel=0.01)  # beside them metrics
