"""The application: its pages."""

from __future__ import annotations

from fastapi.testclient import TestClient


def test_docs_need_no_other_host(client: TestClient) -> None:
    page = client.get("/docs").text
    assert "https://" not in page.replace("https://www.w3.org", "")
    assert client.get("/").headers["content-security-policy"].startswith("default-src 'self'")
