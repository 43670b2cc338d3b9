"""XMP sidecar files (ISO 16684-1): a picture's class and tags, for photo-management programs.

`dc:subject` holds the class and the tags as keywords. The confidence and the tags' shares are in a
namespace of our own.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from search_api.file_modes import users_umask
from search_api.service.results import Tagged
from search_api.text import printable

NAMESPACE = "urn:lookalike:xmp/1.0/"

# Characters that XML 1.0 cannot represent.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_CHECKSUM = re.compile(rb"<lookalike:seal>([0-9a-f]{64})</lookalike:seal>")
_NO_CHECKSUM = b"<lookalike:seal></lookalike:seal>"
_MOST_BYTES = 1 << 20


class ForeignSidecarError(Exception):
    """Another program wrote or changed the existing sidecar file."""


def sidecar(picture: Path) -> Path:
    """``cat.jpg.xmp`` for ``cat.jpg``, so that ``cat.png`` next to it has its own."""
    return picture.with_name(picture.name + ".xmp")


def write(result: Tagged, model: str) -> Path:
    """Write the picture's sidecar file atomically; return its path.

    Replaces an earlier one of ours, but never one that another program wrote or changed.

    Args:
        result: a picture; its class is a keyword only if its prediction has one.
        model: the model's digest.

    Raises:
        ForeignSidecarError: another program wrote or changed the existing file.
        OSError: the file cannot be written.
    """
    path = sidecar(result.path)
    replace = os.path.lexists(path)
    if replace and not _is_ours(path):
        raise ForeignSidecarError(
            f"{path.name} exists already and was written or changed by another program; it is left"
            " unchanged"
        )
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".xmp.tmp")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(document(result, model))
        temporary.chmod(0o666 & ~users_umask())
        if replace:
            temporary.replace(path)
        else:
            try:
                path.hardlink_to(temporary)  # unlike a rename, fails if the file exists by now
            except FileExistsError:
                raise ForeignSidecarError(
                    f"{path.name} has just been written by another program"
                ) from None
    finally:
        temporary.unlink(missing_ok=True)
    return path


def document(result: Tagged, model: str) -> bytes:
    """The content of the sidecar file, in UTF-8."""
    prediction = result.prediction
    label = None if prediction is None else prediction.label
    keywords = dict.fromkeys([*filter(None, [label]), *(word for word, _ in result.tags)])
    items = "".join(f"\n     <rdf:li>{_text(word)}</rdf:li>" for word in keywords)
    subject = ""
    if keywords:
        subject = f"""
   <dc:subject>
    <rdf:Bag>{items}
    </rdf:Bag>
   </dc:subject>"""
    judged = ""
    if prediction is not None and label is not None:
        judged = f"""
   <lookalike:class>{_text(label)}</lookalike:class>
   <lookalike:confidence>{prediction.confidence:.6f}</lookalike:confidence>"""
    tags = "".join(
        '\n     <rdf:li rdf:parseType="Resource">'
        f"<lookalike:name>{_text(word)}</lookalike:name>"
        f"<lookalike:share>{share:.4f}</lookalike:share></rdf:li>"
        for word, share in result.tags
    )
    voted = f"\n   <lookalike:tags>\n    <rdf:Bag>{tags}\n    </rdf:Bag>\n   </lookalike:tags>"
    text = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="Lookalike">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:lookalike={quoteattr(NAMESPACE)}>{subject}{judged}{voted if tags else ""}
   <lookalike:model>{_text(model)}</lookalike:model>
   {_NO_CHECKSUM.decode()}
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
"""
    content = text.encode()
    return content.replace(_NO_CHECKSUM, _checksum(content))


def _is_ours(path: Path) -> bool:
    """Whether the file is byte for byte as `write` wrote it, or empty."""
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > _MOST_BYTES:
            return False
        content = path.read_bytes()
        if not content:
            return True  # a power failure may leave an empty file; nothing in it can be lost
    except OSError:
        return False
    found = _CHECKSUM.search(content)
    return found is not None and found[0] == _checksum(content.replace(found[0], _NO_CHECKSUM))


def _checksum(content: bytes) -> bytes:
    """The SHA-256 of the content, which reveals changes by other programs."""
    digest = hashlib.sha256(content).hexdigest().encode()
    return b"<lookalike:seal>" + digest + b"</lookalike:seal>"


def _text(value: str) -> str:
    return escape(_FORBIDDEN.sub("\ufffd", printable(value)))
