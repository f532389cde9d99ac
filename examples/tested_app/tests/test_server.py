"""The app over HTTP, on a real socket."""

import pytest

from agentscope.testing import AgentClient, AgentClientError, ScriptedModel


async def test_the_answer_comes_with_what_it_used(agent_client: AgentClient, scripted_model: ScriptedModel) -> None:
    scripted_model.add("It is 18 degrees.")
    answer = await agent_client.invoke("How is the weather?", session_id="ada")
    assert answer.text == "It is 18 degrees."
    assert answer.usage.output_tokens == 4
    assert [msg.role for msg in await agent_client.messages("ada")] == ["user", "assistant"]


async def test_a_session_that_is_not_there_is_not_found(agent_client: AgentClient) -> None:
    with pytest.raises(AgentClientError, match="NOT_FOUND"):
        await agent_client.session("nobody")
