"""The proxy that the environment names, as the vendors' clients find it."""

from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from agentscope.errors import UserError


def proxy_for(url: str) -> str | None:
    """The URL of the proxy for a request to ``url``, None when there is none, or ``NO_PROXY`` names the host.

    ``HTTP_PROXY``, ``HTTPS_PROXY`` and ``ALL_PROXY`` name it, in small letters, too. Raises ``UserError`` for one that
    is not spoken to over HTTP.
    """
    parts = urlsplit(url)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    # With the port, for those names of NO_PROXY that have one.
    place = parts.netloc.rpartition("@")[2]
    if not proxy or proxy_bypass(place) or _is_excepted(parts.hostname or "", proxies.get("no", "")):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if not _is_http(proxy):
        # Without its value, which may hold a password.
        raise UserError(
            f"platform.endpoint: the proxy that the environment names for {parts.scheme} is not an http:// URL; mend "
            f"the variable {parts.scheme.upper()}_PROXY or ALL_PROXY, or name the platform's host in NO_PROXY"
        )
    return proxy


def _is_excepted(host: str, names: str) -> bool:
    """Whether ``NO_PROXY`` names the host by what Python's own library doesn't know: a network, or ``*`` in a list."""
    for name in map(str.strip, names.split(",")):
        if name == "*":
            return True
        try:
            if ip_address(host) in ip_network(name, strict=False):
                return True
        except ValueError:
            continue
    return False


def _is_http(proxy: str) -> bool:
    try:
        parts = urlsplit(proxy)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
