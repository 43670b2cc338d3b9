"""Gives Milvus's user root the password that `MILVUS_TOKEN_FILE` names, instead of the default one.

Milvus 2.3 begins with a password that everybody knows. Run this before anything else may connect;
it does nothing if the password has been changed to this one already.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from grpc import RpcError
from pymilvus import MilvusClient, MilvusException

DEFAULT = "Milvus"


def main() -> int:
    """Change the password; the exit code is 0 if root has the wanted one."""
    logging.disable()  # pymilvus logs each refusal with a traceback
    uri = os.environ["MILVUS_URI"]
    token = Path(os.environ["MILVUS_TOKEN_FILE"]).read_text("utf-8").strip()
    user, _, password = token.partition(":")
    if user != "root" or len(password) < 16 or password == DEFAULT:
        print("the token must be root: and a password of 16 characters or more", file=sys.stderr)
        return 2
    if not _accepts(uri, token):
        client = MilvusClient(uri, token=f"root:{DEFAULT}")
        client.update_password("root", DEFAULT, password)
        client.close()
        print("the password of Milvus's user root has been changed")
    if _accepts(uri, f"root:{DEFAULT}") or not _accepts(uri, token):
        print("Milvus does not check passwords; is its authorization switched on?", file=sys.stderr)
        return 1
    return 0


def _accepts(uri: str, token: str) -> bool:
    try:
        client = MilvusClient(uri, token=token)
        client.list_collections()
    except (MilvusException, RpcError):  # an old server's refusal is the second
        return False
    client.close()
    return True


if __name__ == "__main__":
    sys.exit(main())
