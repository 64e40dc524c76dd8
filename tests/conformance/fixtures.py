"""The tools, resources and prompts that the suite calls by name, as its scenarios describe them."""

import asyncio
import base64
import io
import json
import wave
from typing import Any, Final

from mcp.server.context import ServerRequestContext
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.prompts.base import UserMessage
from mcp.shared.exceptions import MCPError
from mcp_types import (
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    AudioContent,
    ContentBlock,
    CreateMessageRequest,
    CreateMessageRequestParams,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    EmbeddedResource,
    EmptyResult,
    ImageContent,
    InputRequest,
    InputRequiredResult,
    ListRootsRequest,
    SamplingMessage,
    SetLevelRequestParams,
    SubscribeRequestParams,
    TextContent,
    TextResourceContents,
    UnsubscribeRequestParams,
)

from conformance.long_calls import SUITE

#: One pixel.
_PNG: Final = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
_PAUSE_SECONDS: Final = 0.05

Ctx = Context[Any]
#: What a call of several rounds answers with: not yet, or in the end.
Round = str | InputRequiredResult


def add_fixtures(server: MCPServer[Any]) -> None:
    """Register everything."""
    _add_contents(server)
    _add_questions(server)
    _add_rounds(server)
    _add_resources(server)
    _add_prompts(server)
    low = server._lowlevel_server
    low.add_request_handler("logging/setLevel", SetLevelRequestParams, _done)
    low.add_request_handler("resources/subscribe", SubscribeRequestParams, _done)
    low.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, _done)


async def _done(ctx: ServerRequestContext[Any, Any], params: object) -> EmptyResult:
    return EmptyResult()


def _text(text: str) -> TextContent:
    return TextContent(type="text", text=text)


def _image() -> ImageContent:
    return ImageContent(type="image", data=base64.b64encode(_PNG).decode(), mime_type="image/png")


def _sound() -> AudioContent:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(1)
        sound.setframerate(8000)
        sound.writeframes(b"\x80")
    return AudioContent(type="audio", data=base64.b64encode(file.getvalue()).decode(), mime_type="audio/wav")


def _resource(uri: str, text: str, mime_type: str = "text/plain") -> EmbeddedResource:
    return EmbeddedResource(type="resource", resource=TextResourceContents(uri=uri, text=text, mime_type=mime_type))


def _add_contents(server: MCPServer[Any]) -> None:
    @server.tool(structured_output=False, description=SUITE)
    async def test_simple_text() -> str:
        return "This is a simple text response for testing."

    @server.tool(structured_output=False, description=SUITE)
    async def test_image_content() -> ImageContent:
        return _image()

    @server.tool(structured_output=False, description=SUITE)
    async def test_audio_content() -> AudioContent:
        return _sound()

    @server.tool(structured_output=False, description=SUITE)
    async def test_embedded_resource() -> EmbeddedResource:
        return _resource("test://embedded-resource", "This is an embedded resource content.")

    @server.tool(structured_output=False, description=SUITE)
    async def test_multiple_content_types() -> list[ContentBlock]:
        data = _resource("test://mixed-content-resource", '{"test":"data","value":123}', "application/json")
        return [_text("Multiple content types test:"), _image(), data]

    @server.tool(structured_output=False, description=SUITE)
    async def test_error_handling() -> str:
        raise ToolError("This tool intentionally returns an error for testing")

    @server.tool(structured_output=False, description=SUITE)
    async def test_tool_with_progress(ctx: Ctx) -> str:
        for done in (0, 50, 100):
            await ctx.report_progress(done, 100)
            await asyncio.sleep(_PAUSE_SECONDS)
        return "Reported three times."

    @server.tool(structured_output=False, description=SUITE)
    async def test_tool_with_logging(ctx: Ctx) -> str:
        for said in ("Tool execution started", "Tool processing data", "Tool execution completed"):
            await ctx.session.send_log_message("info", said, related_request_id=ctx.request_id)
            await asyncio.sleep(_PAUSE_SECONDS)
        return "Logged three times."

    @server.tool(structured_output=False, description=SUITE)
    async def test_logging_tool(ctx: Ctx) -> str:
        await ctx.session.send_log_message("info", "For whoever asked for it", related_request_id=ctx.request_id)
        return "Logged."


def _form(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _add_questions(server: MCPServer[Any]) -> None:
    """What asks while it is under way, on the older protocol."""

    async def asked(ctx: Ctx, message: str, form: dict[str, Any]) -> str:
        result = await ctx.session.elicit_form(message, form, related_request_id=ctx.request_id)
        return f"action={result.action}, content={json.dumps(result.content)}"

    @server.tool(structured_output=False, description=SUITE)
    async def test_sampling(ctx: Ctx, prompt: str) -> str:
        asking = [SamplingMessage(role="user", content=_text(prompt))]
        answer = await ctx.session.create_message(asking, max_tokens=100, related_request_id=ctx.request_id)
        return f"LLM response: {answer.content.text if isinstance(answer.content, TextContent) else ''}"

    @server.tool(structured_output=False, description=SUITE)
    async def test_elicitation(ctx: Ctx, message: str) -> str:
        form = _form(
            username={"type": "string", "description": "User's response"},
            email={"type": "string", "description": "User's email address"},
        )
        return f"User response: {await asked(ctx, message, form)}"

    @server.tool(structured_output=False, description=SUITE)
    async def test_elicitation_sep1034_defaults(ctx: Ctx) -> str:
        form = _form(
            name={"type": "string", "default": "John Doe"},
            age={"type": "integer", "default": 30},
            score={"type": "number", "default": 95.5},
            status={"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
            verified={"type": "boolean", "default": True},
        )
        return f"Elicitation completed: {await asked(ctx, 'Who is it?', form)}"

    @server.tool(structured_output=False, description=SUITE)
    async def test_elicitation_sep1330_enums(ctx: Ctx) -> str:
        plain = ["option1", "option2", "option3"]
        titled = [{"const": f"value{n}", "title": f"{name} Option"} for n, name in enumerate(("First", "Second"), 1)]
        legacy = {"enum": ["opt1", "opt2", "opt3"], "enumNames": ["Option One", "Option Two", "Option Three"]}
        form = _form(
            untitledSingle={"type": "string", "enum": plain},
            titledSingle={"type": "string", "oneOf": titled},
            legacyEnum={"type": "string", **legacy},
            untitledMulti={"type": "array", "items": {"type": "string", "enum": plain}},
            titledMulti={"type": "array", "items": {"anyOf": titled}},
        )
        return f"Elicitation completed: {await asked(ctx, 'Which one?', form)}"


def _question(message: str, name: str, kind: str = "string") -> ElicitRequest:
    return ElicitRequest(
        params=ElicitRequestFormParams(message=message, requested_schema=_form(**{name: {"type": kind}}))
    )


def _sample(text: str, max_tokens: int) -> CreateMessageRequest:
    asking = [SamplingMessage(role="user", content=_text(text))]
    return CreateMessageRequest(params=CreateMessageRequestParams(messages=asking, max_tokens=max_tokens))


def _said(ctx: Ctx, key: str) -> dict[str, Any] | None:
    """Return what the user filled in, None while they have not."""
    answer = (ctx.input_responses or {}).get(key)
    return answer.content if isinstance(answer, ElicitResult) else None


def _round(state: str | None = None, /, **questions: Any) -> InputRequiredResult:
    return InputRequiredResult(input_requests=questions, request_state=state)


def _add_rounds(server: MCPServer[Any]) -> None:
    """What asks by answering with questions, on the newer protocol."""
    name = _question("What is your name?", "name")

    @server.tool(structured_output=False, description=SUITE)
    async def test_input_required_result_elicitation(ctx: Ctx) -> Round:
        said = _said(ctx, "user_name")
        return _round(user_name=name) if said is None else f"Hello, {said['name']}!"

    @server.tool(structured_output=False, description=SUITE)
    async def test_input_required_result_sampling(ctx: Ctx) -> Round:
        question = _round(capital_question=_sample("What is the capital of France?", 100))
        return f"Answered: {ctx.input_responses}" if ctx.input_responses else question

    @server.tool(structured_output=False, description=SUITE)
    async def test_input_required_result_list_roots(ctx: Ctx) -> Round:
        return f"Roots: {ctx.input_responses}" if ctx.input_responses else _round(client_roots=ListRootsRequest())

    @server.tool(structured_output=False, description=SUITE)
    async def test_input_required_result_request_state(ctx: Ctx) -> Round:
        if _said(ctx, "confirm") is None or ctx.request_state != "asked":
            return _round("asked", confirm=_question("Please confirm", "ok", "boolean"))
        return "state-ok"

    @server.tool(structured_output=False, description=SUITE)
    async def test_input_required_result_tampered_state(ctx: Ctx) -> Round:
        return await test_input_required_result_request_state(ctx)

    @server.tool(structured_output=False, description=SUITE)
    async def test_input_required_result_multiple_inputs(ctx: Ctx) -> Round:
        questions: dict[str, InputRequest] = {
            "user_name": name,
            "greeting": _sample("Generate a greeting", 50),
            "client_roots": ListRootsRequest(),
        }
        has_all = questions.keys() <= (ctx.input_responses or {}).keys() and ctx.request_state == "asked"
        return "Everything is answered." if has_all else _round("asked", **questions)

    @server.tool(structured_output=False, description=SUITE)
    async def test_input_required_result_multi_round(ctx: Ctx) -> Round:
        if ctx.request_state is None:
            return _round("1", step1=_question("Step 1: What is your name?", "name"))
        if (said := _said(ctx, "step1")) is not None:
            return _round(f"2 {said['name']}", step2=_question("Step 2: What is your favorite color?", "color"))
        return f"{ctx.request_state.removeprefix('2 ')} likes {(_said(ctx, 'step2') or {}).get('color')}."

    @server.tool(structured_output=False, description=SUITE)
    async def test_input_required_result_capabilities(ctx: Ctx) -> Round:
        declared = ctx.client_capabilities
        questions: dict[str, InputRequest] = {}
        if declared is not None and declared.sampling is not None:
            questions["greeting"] = _sample("Generate a greeting", 50)
        if declared is not None and declared.elicitation is not None:
            questions["user_name"] = name
        return "Answered." if ctx.input_responses else _round(**questions)

    @server.tool(structured_output=False, description=SUITE)
    async def test_streaming_elicitation(ctx: Ctx) -> Round:
        await ctx.report_progress(1, 2)
        return "Answered." if _said(ctx, "user_name") else _round(user_name=name)

    @server.tool(structured_output=False, description=SUITE)
    async def test_missing_capability(ctx: Ctx) -> str:
        if ctx.client_capabilities is None or ctx.client_capabilities.sampling is None:
            missing: dict[str, Any] = {"requiredCapabilities": {"sampling": {}}}
            raise MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, "This tool needs sampling.", missing)
        return "Sampling is declared."


def _add_resources(server: MCPServer[Any]) -> None:
    @server.resource("test://static-text", mime_type="text/plain")
    def static_text() -> str:
        return "This is the content of the static text resource."

    @server.resource("test://static-binary", mime_type="image/png")
    def static_binary() -> bytes:
        return _PNG

    @server.resource("test://template/{id}/data", mime_type="application/json")
    def template(id: str) -> str:
        return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})

    @server.resource("test://watched-resource", mime_type="text/plain")
    def watched() -> str:
        return "Nothing happens here."


def _add_prompts(server: MCPServer[Any]) -> None:
    @server.prompt(description=SUITE)
    def test_simple_prompt() -> str:
        return "This is a simple prompt for testing."

    @server.prompt(description=SUITE)
    def test_prompt_with_arguments(arg1: str, arg2: str) -> str:
        return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"

    @server.prompt(description=SUITE)
    def test_prompt_with_embedded_resource(resourceUri: str) -> list[UserMessage]:
        embedded = _resource(resourceUri, "Embedded resource content for testing.")
        return [UserMessage(embedded), UserMessage("Please process the embedded resource above.")]

    @server.prompt(description=SUITE)
    def test_prompt_with_image() -> list[UserMessage]:
        return [UserMessage(_image()), UserMessage("Please analyze the image above.")]

    @server.prompt(description=SUITE)
    def test_input_required_result_prompt(ctx: Ctx) -> str | InputRequiredResult:
        said = _said(ctx, "user_context")
        if said is None:
            return _round(user_context=_question("What context should the prompt use?", "context"))
        return f"Work in this context: {said['context']}"
