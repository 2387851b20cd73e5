"""HTTP/3 (RFC 9114) over qh3."""
