"""What a command runs in: the environment with the flags laid over it, the desk, and the sandbox in this process."""

from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from gemini_batch_mcp.batches.opening import TransportFactory, lazy_desk
from gemini_batch_mcp.cli import ending
from gemini_batch_mcp.errors import ConfigurationError, StorageError
from gemini_batch_mcp.settings import Settings

if TYPE_CHECKING:
    from gemini_batch_mcp.batches.desk import Desk

T = TypeVar("T")

#: How long a job of the in-process sandbox takes: short enough to watch, long enough to see it move.
_SANDBOX_SECONDS_PER_JOB: Final = 4.0


class Session:
    """The settings and the desk of one command."""

    def __init__(self, env: Mapping[str, str], flags: Mapping[str, str]) -> None:
        self.env = env
        self._flags = flags

    @property
    def user_home(self) -> Path:
        """The user's home directory.

        Raises:
            ConfigurationError: none is known, as in a container that is run under a number without a name.
        """
        try:
            return Path.home()
        except RuntimeError:
            raise ConfigurationError(
                "This user has no home directory: HOME is not set, and this system knows none for the user.",
                "Set HOME; a server also starts with GEMINI_BATCH_HOME set to a directory that it may write.",
            ) from None

    def settings(self, **more: str) -> Settings:
        """Read the settings; `more` wins over flags, flags over the environment."""
        env = {**self.env, **self._flags, **more}
        working_directory = Path.cwd()
        try:
            user_home = self.user_home
        except ConfigurationError:
            if not env.get("GEMINI_BATCH_HOME", "").strip():
                raise
            # All that would be there is in that directory; that it is not read as a whole holds of this one anyway.
            user_home = Path(working_directory.anchor)
        return Settings.from_env(env, working_directory=working_directory, user_home=user_home)

    def run(self, work: Callable[["Desk"], Coroutine[Any, Any, T]], *, to_continue: str = "") -> T:
        """Open the desk, do the work, close it. `to_continue` tells who interrupts it how it goes on."""
        settings = self.settings()

        async def run() -> T:
            async with lazy_desk(settings, transport_for(settings)) as desk:
                return await work(await desk.get())

        return ending.run(run, to_continue=to_continue)


def transport_for(settings: Settings) -> TransportFactory | None:
    """Return what takes the place of the network in the sandbox, None for the network itself."""
    if not settings.sandbox:
        return None

    def in_process() -> Any:
        from gemini_batch_mcp.sandbox.app import Sandbox
        from gemini_batch_mcp.sandbox.config import ByTime, SandboxConfig

        config = SandboxConfig(pace=ByTime(_SANDBOX_SECONDS_PER_JOB))
        try:
            return Sandbox(settings.home / "service", config).transport()
        except OSError as error:
            raise StorageError(
                f"The state directory {settings.home} cannot be used ({error.strerror}).",
                "Set GEMINI_BATCH_HOME to a writable directory.",
            ) from None

    return in_process
