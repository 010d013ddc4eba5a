"""TLS contexts, one per trust domain.

Knows: certificate files, the least version we speak. Does not know: sockets. Building a context reads files and costs
milliseconds: callers build one per trust domain and keep it.
"""

import ssl


def server_context(certificate: str, key: str) -> ssl.SSLContext:
    """Serve with this certificate chain and key (PEM files); TLS 1.2 or later.

    Raises OSError or ssl.SSLError when the files cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(certificate, key)
    return context


def client_context(
    ca_file: str | None = None, certificate: str | None = None, key: str | None = None
) -> ssl.SSLContext:
    """Trust the system's authorities, or `ca_file` alone; present `certificate` where asked. Names are always checked."""
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context
