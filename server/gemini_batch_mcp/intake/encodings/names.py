"""The names of encodings: those that people give, and those that files of every country usually have."""

import codecs
from dataclasses import dataclass
from typing import Final

from gemini_batch_mcp.errors import UsageError


@dataclass(frozen=True, slots=True)
class Page:
    """An encoding. `codec` is Python's name of it, `given` the one to give as `encoding`, `shown` is for sentences."""

    codec: str
    given: str
    shown: str
    #: A character may take several bytes.
    is_wide: bool = False


#: What texts of these times and countries are in where they aren't Unicode. Of two that read a text alike, the first
#: is named.
USUAL: Final = (
    Page("cp1252", "windows-1252", "Windows-1252 (Latin-1)"),
    Page("iso8859-15", "iso-8859-15", "ISO-8859-15"),
    Page("cp850", "cp850", "CP850 (DOS)"),
    Page("cp437", "cp437", "CP437 (DOS)"),
    Page("cp865", "cp865", "CP865 (DOS)"),
    Page("mac-roman", "mac-roman", "Mac Roman"),
    Page("mac-iceland", "mac-iceland", "Mac Icelandic"),
    Page("cp1250", "windows-1250", "Windows-1250"),
    Page("iso8859-2", "iso-8859-2", "ISO-8859-2"),
    Page("cp852", "cp852", "CP852 (DOS)"),
    Page("cp1254", "windows-1254", "Windows-1254"),
    Page("cp857", "cp857", "CP857 (DOS)"),
    Page("cp1257", "windows-1257", "Windows-1257"),
    Page("iso8859-13", "iso-8859-13", "ISO-8859-13"),
    Page("cp775", "cp775", "CP775 (DOS)"),
    Page("cp1251", "windows-1251", "Windows-1251"),
    Page("koi8-r", "koi8-r", "KOI8-R"),
    Page("koi8-u", "koi8-u", "KOI8-U"),
    Page("cp866", "cp866", "CP866 (DOS)"),
    Page("iso8859-5", "iso-8859-5", "ISO-8859-5"),
    Page("mac-cyrillic", "mac-cyrillic", "Mac Cyrillic"),
    Page("cp1253", "windows-1253", "Windows-1253"),
    Page("iso8859-7", "iso-8859-7", "ISO-8859-7"),
    Page("cp737", "cp737", "CP737 (DOS)"),
    Page("cp1255", "windows-1255", "Windows-1255"),
    Page("iso8859-8", "iso-8859-8", "ISO-8859-8"),
    Page("cp862", "cp862", "CP862 (DOS)"),
    Page("cp1256", "windows-1256", "Windows-1256"),
    Page("iso8859-6", "iso-8859-6", "ISO-8859-6"),
    Page("cp874", "windows-874", "Windows-874"),
    Page("cp1258", "windows-1258", "Windows-1258"),
    Page("cp932", "shift_jis", "Shift_JIS", is_wide=True),
    Page("euc_jp", "euc-jp", "EUC-JP", is_wide=True),
    Page("cp949", "euc-kr", "EUC-KR", is_wide=True),
    Page("gb18030", "gb18030", "GB 18030", is_wide=True),
    Page("cp950", "big5", "Big5", is_wide=True),
)
#: Japanese in seven bits, which announces itself.
ISO_2022_JP: Final = Page("iso2022_jp", "iso-2022-jp", "ISO-2022-JP", is_wide=True)
UTF_8: Final = Page("utf-8", "utf-8", "UTF-8", is_wide=True)
_UNICODE: Final = (
    UTF_8,
    Page("utf-16-le", "utf-16-le", "UTF-16", is_wide=True),
    Page("utf-16-be", "utf-16-be", "UTF-16", is_wide=True),
    Page("utf-32-le", "utf-32-le", "UTF-32", is_wide=True),
    Page("utf-32-be", "utf-32-be", "UTF-32", is_wide=True),
)
_KNOWN: Final = {page.codec: page for page in (*_UNICODE, *USUAL, ISO_2022_JP)}
_BY_NAME: Final = {page.given: page for page in _KNOWN.values()}
#: What programs mean by names whose standards hold less, as browsers read them, too.
_MEANT: Final = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "big5": "cp950",
    "utf-8-sig": "utf-8",
    "utf-16": "utf-16-le",
    "utf-32": "utf-32-le",
}
#: Codecs of Python's that no file of text is in.
_NO_FILES: Final = frozenset(
    {"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "utf-7", "mbcs", "oem", "charmap"}
)
_SHOWN_CHARS: Final = 40


def page_of(codec: str) -> Page:
    """Return what is known of one of Python's codecs."""
    return _KNOWN.get(codec) or Page(codec, codec, codec, is_wide=True)


def page_named(name: str) -> Page:
    """Return the encoding that somebody names, whatever its spelling.

    Raises:
        UsageError: there is none of that name.
    """
    spelled = name.strip().lower()
    if (page := _BY_NAME.get(spelled)) is not None:
        return page
    try:
        found = codecs.lookup(spelled)
        "".encode(found.name)
    except (LookupError, ValueError, TypeError, UnicodeError):
        found = None
    if found is None or found.name in _NO_FILES or spelled in _NO_FILES:
        raise UsageError(
            f"No encoding is called {name[:_SHOWN_CHARS]!r}.",
            'Give one such as encoding="windows-1251", "iso-8859-2", "shift_jis" or "utf-16-le".',
        )
    return page_of(_MEANT.get(found.name, found.name))
