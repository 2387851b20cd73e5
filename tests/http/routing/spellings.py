"""Spellings of paths: which route each belongs to, and what is sent on."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Spelling:
    """A path as a client sends it, with routes for `/admin/{rest...}` and for everything else."""

    path: str
    decision: str
    """"admin", "other", or "400"."""
    sent: str = ""
    """What the upstream gets where that is not the path as sent."""
    rest: str = "/x"
    """For admin: what follows the prefix, as sent; "400" where dot segments follow it."""

    @property
    def forwarded(self) -> str:
        return self.sent or self.path

    @property
    def status(self) -> int:
        return 400 if self.decision == "400" else 200


_SAME = (
    "/admin/x", "//admin/x", "///admin//x", "/./admin/x", "/././admin/x", "/x/../admin/x", "/x/y/../../admin/x",
    "/x/./../admin/x", "/%61dmin/x", "/%61%64%6d%69%6e/x", "/%61%64%6D%69%6E/x", "/a%64min/x", "/adm%69n/x",
    "/%2fadmin/x", "/%2Fadmin/x", "/%2f/admin/x", "/%5cadmin/x", "/%5Cadmin/x", "/admin%2fx", "/admin%2Fx",
    "/admin%5cx", "/admin\\x", "/\\admin/x", "/\\\\admin/x", "/\\/admin\\x", "/%2e/admin/x", "/%2E/admin/x",
    "/x/%2e%2e/admin/x", "/x/.%2e/admin/x", "/x/%2e./admin/x", "/x/%2E%2E/admin/x", "/x%2f..%2fadmin/x",
    "/x%2f%2e%2e%2fadmin/x", "/x\\..\\admin\\x", "/x%5c..%5cadmin/x", "/x/..\\admin/x", "/x/..%2fadmin/x",
    "/x/..%5cadmin%5cx", "/x/%2e%2e%2fadmin%2fx", "/x//..//admin/x", "/x/y/..//../admin/x",
    "/%61dmin/../%61dmin/x", "/z/;/../admin/x", "/.%2fadmin/x", "/.%5cadmin/x", "/.\\admin/x", "/%2e%2fadmin/x",
    "/a/b/c/../../../admin/x", "/%78/%2e%2e/%61dmin/x", "/admin;v=1/x", "/admin;/x", "/admin;a=b;c=d/x",
    "/admin%3bv=1/x", "/;/admin/x", "/;v=1/admin/x", "/%3b/admin/x", "/;a/;b/admin/x", "/%61dmin;v=1/x",
    "//;//admin/x", "/admin./x", "/admin../x", "/admin.../x", "/admin%20/x", "/admin%20%20/x", "/admin.%20/x",
    "/admin%2e/x", "/admin.;v=1/x",
)  # fmt: skip

_ADMIN = (
    *(Spelling(path, "admin") for path in _SAME),
    # what follows the prefix
    Spelling("/admin", "admin", rest="/"),
    Spelling("/%61dmin", "admin", rest="/"),
    Spelling("//admin", "admin", rest="/"),
    Spelling("/admin;v=1", "admin", rest="/"),
    Spelling("/admin.", "admin", rest="/"),
    Spelling("/admin%20", "admin", rest="/"),
    Spelling("/x/../admin", "admin", rest="/"),
    Spelling("/admin/", "admin", rest="/"),
    Spelling("/admin%2f", "admin", rest="/"),
    Spelling("/admin%5c", "admin", rest="/"),
    Spelling("/admin\\", "admin", rest="/"),
    Spelling("/admin//", "admin", rest="/"),
    Spelling("/admin//x", "admin"),
    Spelling("/admin/\\x", "admin"),
    Spelling("/admin//host/x", "admin", rest="/host/x"),
    Spelling("/admin/%2fx", "admin", rest="/%2fx"),
    Spelling("/admin/@scope%2fname", "admin", rest="/@scope%2fname"),
    Spelling("/%61dmin/@scope%2fname", "admin", rest="/@scope%2fname"),
    Spelling("/admin%2f@scope%2fname", "admin", rest="/@scope%2fname"),
    Spelling("/admin/a%20b%C3%A4", "admin", rest="/a%20b%C3%A4"),
    Spelling("/admin/%252e%252e/x", "admin", rest="/%252e%252e/x"),
    Spelling("/admin/%ff", "admin", rest="/%ff"),
    Spelling("/admin/x;v=1", "admin", rest="/x;v=1"),
    Spelling("/admin/.hidden", "admin", rest="/.hidden"),
    Spelling("/admin/...", "admin", rest="/..."),
    Spelling("/admin?x=/../y", "admin", rest="/?x=/../y"),
    Spelling("/%61dmin/x?x=%2e%2e", "admin", rest="/x?x=%2e%2e"),
    # dot segments after the prefix stay where nothing is taken off
    Spelling("/admin/../admin/x", "admin", rest="400"),
    Spelling("/admin/./x", "admin", rest="400"),
    Spelling("/admin/y/../x", "admin", rest="400"),
    Spelling("/admin/y/%2e%2e/x", "admin", rest="400"),
    Spelling("/admin/y%2f..%2fx", "admin", rest="400"),
    Spelling("/admin/y\\..\\x", "admin", rest="400"),
    Spelling("/admin/.", "admin", rest="400"),
    Spelling("/admin/y/..", "admin", rest="400"),
    Spelling("/admin/%2e", "admin", rest="400"),
)

_OTHER = (
    *(
        Spelling(path, "other")
        for path in (
            "/",
            "/x",
            "/x/admin",
            "/adminx",
            "/admin-x/y",
            "/adm",
            "/ADMIN/x",
            "/Admin/x",
            "/%41dmin/x",
            "/.admin/x",
            "/%2561dmin/x",
            "/x%252f..%252fadmin/x",
            "/%252e%252e/admin/x",
            "/%252fadmin/x",
            "/%255cadmin/x",
            "/...",
            "/.../admin/x",
            "/x/.../admin",
            "/admin%3fx",
            "/admin%23x",
            "/@scope%2fname",
            "/a%2fb%5Cc",
            "/x//y",
            "/x/%2e%2e/y",
            "/x/../y",
            "/./x",
            "/x%20y/%C3%A4%ff",
            "/x?/admin",
            "/?/../admin/x",
            "/%7Eme/x",
            "/sig/a%2Bb%2f%3D?X-Amz-Signature=%2f",
            "/x;/admin",
            "/x;admin/x",
            "/%20admin/x",
            "/admin%09/x",
            "/admin%0a/x",
            "/admin%e2%88%95x",
            "/%ef%bc%8fadmin",
            "/%c3%a4dmin/x",
            "//x",
            "//host/path",
            "/x/",
        )
    ),
    # some servers read these as paths of /admin: only the path that was compared is sent on
    Spelling("/admin/../x", "other", "/x"),
    Spelling("/admin/..", "other", "/"),
    Spelling("/admin/%2e%2e/x", "other", "/x"),
    Spelling("/admin/y/../../x?q=/..", "other", "/x?q=/.."),
    Spelling("/admin%2f..%2fx", "other", "/x"),
    Spelling("/admin/y%2f..%2f..%2fx", "other", "/x"),
    Spelling("/admin\\..\\x", "other", "/x"),
    Spelling("/admin/y\\..\\..\\x", "other", "/x"),
    Spelling("/admin//../x", "other", "/x"),
    Spelling("/admin//y/../../x%20%252fz", "other", "/x%20%252fz"),
    Spelling("/z/../admin//../x", "other", "/x"),
    Spelling("//host/admin/x", "other", "/host/admin/x"),
    Spelling("///host/admin/x", "other", "/host/admin/x"),
    Spelling("/\\host/admin/x", "other", "/host/admin/x"),
    Spelling("//host/%61dmin", "other", "/host/admin"),
    Spelling("//host/y/../admin", "other", "/host/admin"),
    Spelling("/" + "./" * 20 + "x", "other", "/x"),
    Spelling("/y/../" + "x" * 1100, "other", "/" + "x" * 1100),
)

_REFUSED = (
    *(
        Spelling(path, "400")
        for path in (
            "/..", "/../admin/x", "/../x", "/%2e%2e/admin/x", "/%2e%2e", "/..%2fadmin/x", "/..\\admin/x", "/x/../..",
            "/x/../../admin/x", "/admin/../../admin/x", "/./../admin/x", "//../admin/x", "/%5c..%5cadmin",
            "/%00", "/admin%00", "/admin%00/x", "/%00/admin/x", "/x%00/../admin/x", "/;/x/../../admin",
            "/admin/x%00.png",
            "/..;/admin/x", "/x/..;/admin/x", "/x/..;v=1/admin/x", "/x/.;/admin", "/x/%2e%2e;/admin/x",
            "/x/..%3b/admin",
            "/admin/..;/x", "/x/..%20/admin/x", "/x/.%20/admin/x", "/x/..%09/admin/x", "/x/..%20./admin/x",
            "/%c0%afadmin/x", "/x/%c0%ae%c0%ae/admin/x", "/%c1%a1dmin/x", "/%e0%80%afadmin/x", "/%f0%80%80%afadmin/x",
            "/%c1%9cadmin", "/%c0%80", "/%", "/%2", "/%zz", "/%u002e%u002e/admin", "/admin/%%32%65", "/%2%65/admin",
        )
    ),
)  # fmt: skip

SPELLINGS = (*_ADMIN, *_OTHER, *_REFUSED)
