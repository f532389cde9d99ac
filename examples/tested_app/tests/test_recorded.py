"""The app with what the real model once said: see `recordings`, made with `pytest --agentscope-record`."""

from agentscope.runtime import Runtime
from agentscope.testing import FakeToolkit, RecordedModels, assert_said


async def test_the_real_model_asks_for_the_city(
    recorded_models: RecordedModels, agent_runtime: Runtime, agent_tools: FakeToolkit
) -> None:
    answer = [msg async for msg in agent_runtime.invoke("How is the weather?")]
    assert_said(answer, "Which city")
