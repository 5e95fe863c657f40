"""The Content-Security-Policy of every page: nothing but what this server serves, nothing inline."""

POLICY = "; ".join(
    [
        "default-src 'self'",  # scripts, styles, images, frames, and WebSockets of this origin
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'self'",
        "object-src 'none'",
    ]
)


def content_security_policy(get_response):
    """Django middleware: add the policy to each response."""

    def middleware(request):
        response = get_response(request)
        response.headers["Content-Security-Policy"] = POLICY
        return response

    return middleware
