"""Cloud Storage whichever API a server uses: objects may be sources and destinations of any batch."""

import importlib
from typing import Any

from gemini_batch_mcp.errors import ConfigurationError
from gemini_batch_mcp.gemini.retry import RetryPolicy, Timeouts
from gemini_batch_mcp.gemini.vertex._access import credentials_of, quieten
from gemini_batch_mcp.gemini.vertex._failures import BUCKETS
from gemini_batch_mcp.gemini.vertex._storage import PIECE_BYTES, Storage, extended
from gemini_batch_mcp.settings import Cloud

__all__ = ["PIECE_BYTES", "extended", "open_storage"]


def open_storage(cloud: Cloud) -> Storage:
    """Load the client and find the credentials. Blocks for a second.

    Raises:
        ConfigurationError: the client is not installed, or there are no credentials.
    """
    quieten()
    try:
        storage: Any = importlib.import_module("google.cloud.storage")
    except ImportError:
        raise ConfigurationError(
            "google-cloud-storage is not installed; gs:// needs it.",
            "Install this server with its extra: pip install 'gemini-batch-mcp[cloud]'.",
        ) from None
    options = {"api_endpoint": cloud.storage_url} if cloud.storage_url else None
    # An object belongs to a bucket, and needs no project.
    client = storage.Client(project=None, credentials=credentials_of(cloud), client_options=options)
    return Storage(client, RetryPolicy(), Timeouts(), BUCKETS)
