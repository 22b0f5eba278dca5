"""`pilothouse keys`: what the cluster's keys are, and their exchange without an interruption."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from pilothouse.foundation.terminal import CommandError, ExitCode, emit, examples, output_option

if TYPE_CHECKING:
    from pilothouse.apiserver.access.pki import Pki
    from pilothouse.apiserver.encryption_config import Encryption

__all__ = ["keys"]

_WHAT = click.Choice(["secrets", "tokens", "ca", "front-proxy-ca"])
_directory = click.option(
    "--data-dir", required=True, type=click.Path(exists=True, file_okay=False), help="The server's directory."
)
_SOON = "a running server takes it up within ten seconds"


@click.group(
    epilog=examples(
        "pilothouse keys status --data-dir ./cluster",
        "pilothouse keys rotate secrets --data-dir ./cluster",
        "# a new CA in three steps, clients getting the new ca.crt between them",
        "pilothouse keys rotate ca --data-dir ./cluster",
        "pilothouse keys rotate ca --data-dir ./cluster",
        "pilothouse keys retire ca --data-dir ./cluster",
    )
)
def keys() -> None:
    """Show and exchange the keys of an API server.

    Certificates that the server signs for itself and the administrator are renewed without any command.
    """


@keys.command()
@_directory
@output_option
def status(data_dir: str, output: str) -> None:
    """List certificates with their end, and the keys of tokens and secrets by name."""
    from cryptography import x509  # noqa: PLC0415

    from pilothouse.apiserver.access.pki import PkiError  # noqa: PLC0415

    pki, rows = _pki(data_dir), []
    try:
        for name in ("ca", "front-proxy-ca", "apiserver", "admin", "front-proxy-client"):
            rows += [
                {"key": name, "what": "certificate", "until": found.not_valid_after_utc.isoformat()}
                for found in x509.load_pem_x509_certificates(pki.read(f"{name}.crt"))
            ]
        rows.append({"key": "sa", "what": f"signs tokens with {', '.join(pki.key_ring().algorithms)}", "until": ""})
    except PkiError as error:
        raise CommandError(str(error), code=ExitCode.NOT_FOUND) from error
    rows += [{"key": name, "what": "encrypts secrets", "until": ""} for name in _encryption(data_dir).key_names()]
    emit(rows, output)


@keys.command()
@click.argument("what", type=_WHAT)
@_directory
def rotate(what: str, data_dir: str) -> None:
    """Make a new key of WHAT; the former one stays good until it is retired.

    secrets: objects are encrypted anew by the running server, which then forgets the old key (with etcd behind it,
    `retire` does that). tokens: new tokens are signed with the new key. ca, front-proxy-ca: the first call announces
    the next authority, the second has it sign.
    """
    from pilothouse.apiserver.access.pki import PkiError  # noqa: PLC0415
    from pilothouse.apiserver.encryption import EncryptionError  # noqa: PLC0415

    try:
        if what == "secrets":
            name = _encryption(data_dir).add_key()
            click.echo(f"new key {name} for secrets; {_SOON} and encrypts all secrets with it")
        elif what == "tokens":
            _pki(data_dir).rotate_signing_key()
            click.echo(f"new key for tokens; {_SOON}; retire the old one when its tokens have ended")
        elif _pki(data_dir).rotate_ca(what) == "announced":
            click.echo(f"the next {what} is trusted beside the present one; {_SOON}")
            click.echo(f"hand {os.path.join(data_dir, 'pki', what + '.crt')} to all clients, then rotate once more")
        else:
            click.echo(f"the new {what} signs now; {_SOON}; retire the old one when nobody needs it any more")
    except (PkiError, EncryptionError) as error:
        raise CommandError(str(error)) from error


@keys.command()
@click.argument("what", type=_WHAT)
@_directory
def retire(what: str, data_dir: str) -> None:
    """Forget the former keys of WHAT: what only they made is no longer good."""
    from pilothouse.apiserver.access.pki import PkiError  # noqa: PLC0415
    from pilothouse.apiserver.encryption import EncryptionError  # noqa: PLC0415

    try:
        if what == "secrets":
            gone = _encryption(data_dir).prune()
            click.echo(f"forgotten: {', '.join(gone) or 'nothing'}")
            return
        pki = _pki(data_dir)
        if what == "tokens":
            pki.retire_signing_keys()
        else:
            pki.retire_ca(what)
    except (PkiError, EncryptionError) as error:
        raise CommandError(str(error)) from error
    click.echo(f"only the present key of {what} is good; {_SOON}, distrust of a CA with its next start")


def _pki(data_dir: str) -> Pki:
    from pilothouse.apiserver.access.pki import Pki  # noqa: PLC0415

    return Pki(os.path.join(data_dir, "pki"))


def _encryption(data_dir: str) -> Encryption:
    from pilothouse.apiserver.encryption import EncryptionError  # noqa: PLC0415
    from pilothouse.apiserver.encryption_config import Encryption  # noqa: PLC0415

    path: Any = os.path.join(data_dir, "pki", "encryption.json")
    try:
        return Encryption.load(path)
    except EncryptionError as error:
        hint = "start the server once; a file of your own (--encryption-provider-config) is yours to edit"
        raise CommandError(str(error), hint=hint, code=ExitCode.NOT_FOUND) from error
