"""Compiled blocks give the eager images, and no third image compiles anything again."""

import pytest
import torch

import halfbyte
from halfbyte.testing.pipelines import output_of, tiny_pipeline


@pytest.mark.parametrize("name", ["dit", "flux_embeds_only"])
@pytest.mark.parametrize("numerics", ["native", "w4a4"])
def test_compiled_equals_eager_without_recompilation(name, numerics, monkeypatch):
    monkeypatch.setenv("HALFBYTE_CPU_KIND", "float32")
    made = {}
    for compile in (False, {"backend": "aot_eager"}):
        torch.compiler.reset()
        pipe, call = tiny_pipeline(name)
        call = {**call, "num_inference_steps": 4}
        fast = halfbyte.accelerate(pipe, "rtn_int4", cache="interval:2", numerics=numerics, compile=compile, progress=False)
        made[bool(compile)] = [output_of(fast, call, seed) for seed in range(2)]
        if compile:
            with torch.compiler.set_stance("fail_on_recompile"):
                made["third"] = output_of(fast, call, 0)
    for eager, compiled in zip(made[False], made[True], strict=True):
        torch.testing.assert_close(compiled, eager, atol=1e-5, rtol=0)
    assert torch.equal(made["third"], made[True][0])
