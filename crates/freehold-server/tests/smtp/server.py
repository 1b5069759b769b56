#!/usr/bin/env python3
"""A mail server for tests: it tells what it is given, one JSON object a line, and refuses whom the test
asks it to refuse by an address.

usage: server.py [--starttls | --implicit] [--certificate FILE --key FILE] [--user NAME --password PASSWORD]
                 [--inject ANSWER]…
"""

import argparse
import asyncio
import email
import email.policy
import json
import ssl

from aiosmtpd.smtp import SMTP, AuthResult


def tell(**event):
    print(json.dumps(event), flush=True)


class Handler:
    """What is answered, by the first part of an address."""

    def __init__(self, password):
        self.password = password

    async def handle_MAIL(self, server, session, envelope, address, options):
        tell(event="sender", address=address, options=options)
        if address.startswith("banned@"):
            return "550 5.7.1 this sender is banned"
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):
        tell(event="recipient", address=address)
        match address.split("@")[0]:
            case "gone":
                return "550 5.1.1 nobody of this name"
            case "later":
                return "451 4.7.1 come back later"
            case "unknown":
                return "530 5.7.0 sign in first"
            case "echo":
                return f"550 5.1.1 your password is {self.password}"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        letter = email.message_from_bytes(envelope.content, policy=email.policy.default)
        text = letter.get_content().replace("\r\n", "\n")
        tell(
            event="letter",
            to=envelope.rcpt_tos,
            cipher=server.transport.get_extra_info("cipher"),
            user=session.login_data.decode() if session.login_data else None,
            headers=[[name, str(value)] for name, value in letter.items()],
            text=text,
            ascii=envelope.content.isascii(),
        )
        match envelope.rcpt_tos[0].split("@")[0]:
            case "spam":
                return "554 5.7.1 looks like spam: " + " ".join(text.split())
            case "full":
                return "452 4.3.1 no room for " + " ".join(text.split())
        return "250 OK"


class Injecting(SMTP):
    """Somebody in between, who adds answers in plain text to the one that STARTTLS has."""

    added = []

    async def push(self, status):
        if isinstance(status, str) and status.startswith("220 Ready"):
            status = "\r\n".join([status, *self.added])
        await super().push(status)


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--starttls", action="store_true")
    parser.add_argument("--implicit", action="store_true")
    parser.add_argument("--certificate")
    parser.add_argument("--key")
    parser.add_argument("--user")
    parser.add_argument("--password")
    parser.add_argument("--inject", action="append", default=[])
    given = parser.parse_args()
    Injecting.added = given.inject
    context = None
    if given.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(given.certificate, given.key)

    def authenticate(server, session, envelope, mechanism, data):
        login, password = data.login.decode(), data.password.decode()
        tell(event="sign-in", user=login)
        if (login, password) == (given.user, given.password):
            session.login_data = data.login
            return AuthResult(success=True, auth_data=data)
        return AuthResult(success=False, handled=False, message=f"535 5.7.8 {password} is wrong")

    def smtp():
        return Injecting(
            Handler(given.password),
            hostname="localhost",
            tls_context=context if given.starttls else None,
            require_starttls=given.starttls,
            authenticator=authenticate,
            auth_required=given.user is not None,
            # It knows no TLS but its own STARTTLS.
            auth_require_tls=given.starttls,
            auth_exclude_mechanism=[] if given.user else ["LOGIN", "PLAIN"],
        )

    loop = asyncio.get_running_loop()
    server = await loop.create_server(smtp, "127.0.0.1", 0, ssl=context if given.implicit else None)
    tell(event="listening", port=server.sockets[0].getsockname()[1])
    await server.serve_forever()


asyncio.run(main())
