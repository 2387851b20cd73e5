"""The Huffman code of HPACK (RFC 7541 section 5.2 and appendix B).

The code is canonical, so the lengths of its codes define it. Decoding runs a state machine byte by byte; the
transitions of a state are computed when it is first reached.
"""

from __future__ import annotations

from llama._core.errors import ProtocolError

_EOS = 256
_BY_LENGTH: tuple[tuple[int, bytes], ...] = (
    (5, b"012aceiost"),
    (6, b" %-./3456789=A_bdfghlmnpru"),
    (7, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, b"&*,;XZ"),
    (10, b'!"()?'),
    (11, b"'+|"),
    (12, b"#>"),
    (13, b"\x00$@[]~"),
    (14, b"^}"),
    (15, b"<`{"),
    (19, b"\\\xc3\xd0"),
    (20, b"\x80\x82\x83\xa2\xb8\xc2\xe0\xe2"),
    (21, b"\x99\xa1\xa7\xac\xb0\xb1\xb3\xd1\xd8\xd9\xe3\xe5\xe6"),
    (
        22,
        b"\x81\x84\x85\x86\x88\x92\x9a\x9c\xa0\xa3\xa4\xa9\xaa\xad\xb2\xb5\xb9\xba\xbb\xbd\xbe\xc4\xc6\xe4\xe8\xe9",
    ),
    (
        23,
        (
            b"\x01\x87\x89\x8a\x8b\x8c\x8d\x8f\x93\x95\x96\x97\x98\x9b\x9d\x9e\xa5\xa6\xa8\xae\xaf\xb4\xb6\xb7\xbc\xbf"
            b"\xc5\xe7\xef"
        ),
    ),
    (24, b"\t\x8e\x90\x91\x94\x9f\xab\xce\xd7\xe1\xec\xed"),
    (25, b"\xc7\xcf\xea\xeb"),
    (26, b"\xc0\xc1\xc8\xc9\xca\xcd\xd2\xd5\xda\xdb\xee\xf0\xf2\xf3\xff"),
    (27, b"\xcb\xcc\xd3\xd4\xd6\xdd\xde\xdf\xf1\xf4\xf5\xf6\xf7\xf8\xfa\xfb\xfc\xfd\xfe"),
    (
        28,
        (
            b"\x02\x03\x04\x05\x06\x07\x08\x0b\x0c\x0e\x0f\x10\x11\x12\x13\x14\x15\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f"
            b"\x7f\xdc\xf9"
        ),
    ),
    (30, b"\n\r\x16"),
)


def _codes() -> list[str]:
    """Return the code of each symbol as a string of ones and zeros; the last is EOS."""
    codes = [""] * 257
    code = length = 0
    symbols = [(bits, symbol) for bits, group in _BY_LENGTH for symbol in group]
    for bits, symbol in [*symbols, (30, _EOS)]:
        code <<= bits - length
        length = bits
        codes[symbol] = f"{code:0{bits}b}"
        code += 1
    return codes


_CODES = _codes()
_LENGTHS = [len(code) for code in _CODES]
_BITS = {chr(symbol): code for symbol, code in enumerate(_CODES[:_EOS])}


def _tree() -> list[list[int]]:
    """Return the code's tree: for each node, the next node after a 0 and after a 1, or -1 minus a symbol."""
    nodes = [[0, 0]]
    for symbol, code in enumerate(_CODES):
        node = 0
        for bit in code[:-1]:
            follow = nodes[node][bit == "1"]
            if not follow:
                nodes.append([0, 0])
                follow = nodes[node][bit == "1"] = len(nodes) - 1
            node = follow
        nodes[node][code[-1] == "1"] = -1 - symbol
    return nodes


_NODES = _tree()


class _State(list[tuple["_State", str]]):
    """A decoder state, a node of the tree: for each next byte, the next state and the decoded characters."""

    __slots__ = ("is_end", "node")

    def __init__(self, node: int, *, is_end: bool) -> None:
        self.node = node
        self.is_end = is_end
        """Whether a string may end in this state."""


def _paddings() -> frozenset[int]:
    """Return the nodes at which a string may end: up to seven ones from the root."""
    node, nodes = 0, {0}
    for _ in range(7):
        node = _NODES[node][1]
        nodes.add(node)
    return frozenset(nodes)


_ENDS = _paddings()
_STATES = [_State(node, is_end=node in _ENDS) for node in range(len(_NODES))]
_FAILED = _State(-1, is_end=False)
"""The state after EOS; every byte returns to it."""
_FAILED.extend([(_FAILED, "")] * 256)


def _transition(node: int, byte: int) -> tuple[_State, str]:
    text = ""
    for shift in range(7, -1, -1):
        node = _NODES[node][byte >> shift & 1]
        if node < 0:
            if node == -1 - _EOS:
                return _FAILED, ""
            text += chr(-1 - node)
            node = 0
    return _STATES[node], text


def huffman_decode(data: bytes) -> str:
    """Decode a Huffman string to Latin-1 text. Raises ProtocolError if it contains EOS or wrong padding."""
    state = _STATES[0]
    parts: list[str] = []
    for byte in data:
        if not state:
            state.extend([_transition(state.node, each) for each in range(256)])
        state, part = state[byte]
        parts.append(part)
    if not state.is_end:
        raise ProtocolError(
            "EOS within a Huffman string" if state is _FAILED else "a Huffman string has wrong padding"
        )
    return "".join(parts)


def huffman_encode(text: str) -> bytes:
    """Encode Latin-1 text with the Huffman code."""
    if not text:
        return b""
    bits = "".join([_BITS[char] for char in text])
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")
