"""Credentials of pulls out of the secrets that a pod names, read when an image is pulled."""

from __future__ import annotations

from typing import Final

from pilothouse.client import Client, ClientError
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.status import ApiStatus
from pilothouse.kinds.structs.core_config import Secret
from pilothouse.kinds.structs.core_pods import Pod
from pilothouse.node.errors import ImagePullError
from pilothouse.node.images.keyring import Keyring, KeyringError
from pilothouse.node.images.reference import is_local, parse

from .ports import PullCredentials

__all__ = ["PullSecrets"]

_MAX_SECRETS: Final = 64
_log = get_logger("pilothouse.node.agent")


class PullSecrets:
    """The `Credentials` of an agent: `imagePullSecrets` of pods, which their service accounts' are part of by then."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def of(self, pod: Pod, image: str) -> PullCredentials:
        """Return what to try for an image, and the secrets that cannot be had.

        Raises `InvalidImageName`, and `ImagePullError` for a secret that is none of a registry.
        """
        names = [each.name for each in pod.spec.image_pull_secrets if each.name]
        if not names or is_local(image):
            return PullCredentials()
        reference = parse(image)
        keyring = Keyring()
        missing = names[_MAX_SECRETS:]
        for name in dict.fromkeys(names[:_MAX_SECRETS]):
            try:
                secret = await self._client.get(Secret, name, pod.metadata.namespace)
            except (ApiStatus, ClientError, OSError) as error:
                _log.info("a pull secret cannot be read", pod=pod.metadata.name, secret=name, reason=str(error))
                missing.append(name)
                continue
            try:
                keyring.add({key: bytes(value) for key, value in secret.data.items()})
            except KeyringError as error:
                raise ImagePullError(
                    f'imagePullSecrets: secret "{pod.metadata.namespace}/{name}" is none of a registry: {error}'
                ) from None
        return PullCredentials(auths=keyring.lookup(reference), missing=tuple(missing))
