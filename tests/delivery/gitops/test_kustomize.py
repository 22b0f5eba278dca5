"""Overlays as Kustomize itself renders them: the same objects from the same files, over what overlays are made of."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pilothouse.delivery.gitops.addresses import parse_address
from pilothouse.delivery.gitops.errors import SourceError
from pilothouse.delivery.gitops.git import Git
from pilothouse.delivery.gitops.helm import ReleaseFacts
from pilothouse.delivery.gitops.kustomizations import targets_of
from pilothouse.delivery.gitops.mirrors import Limits, Mirror
from pilothouse.delivery.gitops.rendering import At, Rendered, Renderer
from pilothouse.delivery.resources.applications import Source
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds.structs import from_dict
from support.clientskit import CLIENTS
from support.gitopskit import config_map
from support.gitrepo import GitRepo

TOOLS = f"{CLIENTS}{os.pathsep}{os.environ.get('PATH', '')}"
KUSTOMIZE = shutil.which("kustomize", path=TOOLS) or shutil.which("kubectl", path=TOOLS)
pytestmark = pytest.mark.skipif(KUSTOMIZE is None, reason="neither kustomize nor kubectl is there")

BASE = {
    "base/kustomization.yaml": "resources: [web.yaml, service.yaml, job.yaml]\n",
    "base/web.yaml": """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: registry.example.com/web:1.0
        args: ["--yes", "on", "0777", "1e3"]
        env: [{name: MODE, value: "n"}, {name: SIZE, value: "010"}]
        envFrom: [{configMapRef: {name: settings}}, {secretRef: {name: keys}}]
        resources: {limits: {cpu: 0.5, memory: 64Mi}}
      - name: side
        image: side@sha256:0000000000000000000000000000000000000000000000000000000000000000
      volumes: [{name: c, configMap: {name: settings, defaultMode: 0644}}]
""",
    "base/service.yaml": """\
apiVersion: v1
kind: Service
metadata: {name: web, annotations: {on: "yes", size: "0x10"}}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
""",
    "base/job.yaml": """\
apiVersion: batch/v1
kind: CronJob
metadata: {name: sweep}
spec:
  schedule: "*/5 * * * *"
  jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: sweep, image: web}]}}}}
""",
}
GENERATED: dict[str, str | bytes] = {
    "base/kustomization.yaml": """\
resources: [web.yaml]
configMapGenerator:
- name: settings
  literals: [COLOUR=blue, "URL=https://example.com/x?ref=main", FLAG=yes]
  files: [app.conf, other.conf=files/app.conf, blob.bin]
  envs: [some.env]
secretGenerator:
- {name: keys, type: Opaque, literals: [TOKEN=t0ken]}
- {name: plain, literals: [A=b], options: {disableNameSuffixHash: true, labels: {made: here}}}
generatorOptions: {annotations: {note: generated}}
""",
    "base/app.conf": "a = 1\nb = yes\n",
    "base/files/app.conf": "c = 2\n",
    "base/blob.bin": b"\x00\xff\xfe",
    "base/some.env": "ONE=1\nTWO=two\n",
}
SHAPES: dict[str, dict[str, str | bytes]] = {
    "a base": {"over/kustomization.yaml": "resources: [../base]\n"},
    "names and namespace": {
        "over/kustomization.yaml": "resources: [../base]\nnamePrefix: p-\nnameSuffix: -s\nnamespace: shop\n"
    },
    "labels and annotations": {
        "over/kustomization.yaml": "resources: [../base]\ncommonLabels: {team: shop}\ncommonAnnotations: {by: ada}\n"
        "labels: [{pairs: {tier: front}, includeSelectors: false, includeTemplates: true}]\n"
    },
    "images and replicas": {
        "over/kustomization.yaml": "resources: [../base]\nreplicas: [{name: web, count: 5}]\nimages:\n"
        "- {name: registry.example.com/web, newName: other/web, newTag: '2.0'}\n"
        "- {name: side, digest: 'sha256:1111111111111111111111111111111111111111111111111111111111111111'}\n"
    },
    "a strategic patch": {
        "over/kustomization.yaml": "resources: [../base]\npatches: [{path: more.yaml}]\n"
        "patchesStrategicMerge: ['{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {type: NodePort}}\n']\n",
        "over/more.yaml": "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  template:\n"
        "    spec:\n      containers:\n      - {name: web, env: [{name: MODE, value: prod}, {name: NEW, value: '1'}]}\n"
        "      - {name: side, $patch: delete}\n",
    },
    "a patch of JSON 6902": {
        "over/kustomization.yaml": "resources: [../base]\npatches:\n- target: {kind: Deployment, name: w.*}\n"
        "  patch: |-\n    - {op: replace, path: /spec/replicas, value: 7}\n"
        "    - {op: add, path: /metadata/labels/a~1b, value: c}\n"
        "- {target: {kind: Service}, path: patch.json}\n",
        "over/patch.json": '[{"op": "remove", "path": "/metadata/annotations/size"}]',
    },
    "a patch that deletes": {
        "over/kustomization.yaml": "resources: [../base]\npatches:\n"
        "- patch: '{apiVersion: batch/v1, kind: CronJob, metadata: {name: sweep}, $patch: delete}'\n"
    },
    "generators": {**GENERATED, "over/kustomization.yaml": "resources: [../base]\nnamePrefix: p-\n"},
    "generators that merge": {
        **GENERATED,
        "over/kustomization.yaml": "resources: [../base]\n"
        "configMapGenerator: [{name: settings, behavior: merge, literals: [COLOUR=red]}]\n"
        "secretGenerator: [{name: keys, behavior: replace, literals: [OTHER=x]}]\n",
    },
    "components": {
        "over/kustomization.yaml": "resources: [../base]\ncomponents: [../components/tls, ../components/big]\n",
        "components/tls/kustomization.yaml": "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\n"
        "resources: [cert.yaml]\n"
        "patches: [{patch: '{apiVersion: v1, kind: Service, metadata: {name: web, labels: {tls: \"on\"}}}'}]\n",
        "components/tls/cert.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: cert}\nstringData: {crt: x}\n",
        "components/big/kustomization.yaml": "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\n"
        "replicas: [{name: web, count: 9}]\n",
    },
    "replacements": {
        "over/kustomization.yaml": "resources: [../base]\nreplacements:\n- {path: swap.yaml}\n"
        "- source: {kind: Service, name: web, fieldPath: 'spec.ports.0.targetPort'}\n"
        "  targets: [{select: {kind: Deployment}, options: {create: true},\n"
        "    fieldPaths: ['metadata.annotations.port']}]\n",
        "over/swap.yaml": "source: {kind: Deployment, name: web, fieldPath: metadata.name}\n"
        "targets:\n- select: {kind: CronJob}\n"
        "  fieldPaths: ['spec.jobTemplate.spec.template.spec.containers.0.image']\n",
    },
    "a diamond of overlays": {
        "mid/a/kustomization.yaml": "resources: [../../base]\nnamePrefix: a-\n",
        "mid/b/kustomization.yaml": "resources: [../../base]\nnamePrefix: b-\n",
        "over/kustomization.yaml": "resources: [../mid/a, ../mid/b]\nnamespace: both\n",
    },
    "transformers and validators": {
        "over/kustomization.yaml": "resources: [../base]\ntransformers: [prefix.yaml]\n"
        "generators:\n- |-\n  apiVersion: builtin\n  kind: ConfigMapGenerator\n  metadata: {name: made}\n"
        "  literals: [A=b]\n",
        "over/prefix.yaml": "apiVersion: builtin\nkind: PrefixTransformer\nmetadata: {name: p}\nprefix: t-\n"
        "fieldSpecs: [{path: metadata/name}]\n",
    },
    "a file and a name of another kind": {
        "over/kustomization.yml": "resources: [../base, extra]\n",
        "over/extra/Kustomization": "resources: [cm.yaml]\n",
        "over/extra/cm.yaml": config_map("extra", x="1"),
    },
    "custom resources": {
        "over/kustomization.yaml": "resources: [thing.yaml]\nnamePrefix: p-\nconfigurations: [names.yaml]\n"
        "configMapGenerator: [{name: settings, literals: [A=b]}]\n",
        "over/thing.yaml": "apiVersion: example.com/v1\nkind: Thing\nmetadata: {name: t}\n"
        "spec: {uses: settings, big: 12345678901}\n",
        "over/names.yaml": "nameReference: [{kind: ConfigMap, fieldSpecs: [{kind: Thing, path: spec/uses}]}]\n",
    },
}


class Bench:
    def __init__(self, repo: GitRepo, tmp_path: Path) -> None:
        self.repo = repo
        git = Git(str(tmp_path / "git"))
        self.mirror = Mirror(parse_address(repo.url), str(tmp_path / "m"), git, FakeClock(), Limits())
        self.renderer = Renderer(programs=str(CLIENTS))

    async def render(self, path: str = "over", **source: Any) -> Rendered:
        commit = (await self.mirror.look(0)).resolve("main")
        await self.mirror.ensure(commit)
        given = {name: each for name, each in source.items() if each is not None}
        tree = {"repoURL": self.repo.url, "path": path, **given}
        return await self.renderer.render(from_dict(tree, Source), At(self.mirror, commit), ReleaseFacts("a", "d"), {})


@pytest.fixture
def bench(repo: GitRepo, tmp_path: Path) -> Bench:
    return Bench(repo, tmp_path)


def real(place: Path) -> list[Any]:
    """Return what the program gives for the work tree, read as Kubernetes does: every plain text is JSON's."""
    words = [KUSTOMIZE, "kustomize"] if Path(str(KUSTOMIZE)).name == "kubectl" else [KUSTOMIZE, "build"]
    done = subprocess.run([*map(str, words), str(place)], capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
    return [_json(each) for each in yaml.safe_load_all(done.stdout)]


def _json(value: Any) -> Any:
    return json.loads(json.dumps(value, sort_keys=True))


def ours(rendered: Rendered) -> list[Any]:
    return [json.loads(each.data) for each in rendered.objects]


@pytest.mark.parametrize("shape", SHAPES)
async def test_the_same_as_the_program_gives(bench: Bench, repo: GitRepo, shape: str) -> None:
    repo.commit({**BASE, **SHAPES[shape], "elsewhere/big.yaml": "not: needed\n"})
    found = await bench.render()
    assert found.kind == "Kustomize"
    assert ours(found) == real(repo.path / "over")


OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "names": (
        {"namePrefix": "p-", "nameSuffix": "-s", "namespace": "shop"},
        "namePrefix: p-\nnameSuffix: -s\nnamespace: shop\n",
    ),
    "images": (
        {"images": ["registry.example.com/web=other/web:2", "side:3"]},
        "images: [{name: registry.example.com/web, newName: other/web, newTag: '2'}, {name: side, newTag: '3'}]\n",
    ),
    "images by digest": ({"images": ["side@sha256:22"]}, "images: [{name: side, digest: 'sha256:22'}]\n"),
    "replicas": ({"replicas": [{"name": "web", "count": 4}]}, "replicas: [{name: web, count: 4}]\n"),
    "labels": (
        {"commonLabels": {"team": "x"}, "commonAnnotations": {"by": "ada"}},
        "commonLabels: {team: x}\ncommonAnnotations: {by: ada}\n",
    ),
    "labels without selectors": (
        {"commonLabels": {"team": "x"}, "labelWithoutSelector": True, "labelIncludeTemplates": True},
        "labels: [{pairs: {team: x}, includeTemplates: true}]\n",
    ),
    "patches": (
        {"patches": [{"target": {"kind": "Deployment"}, "patch": "- {op: replace, path: /spec/replicas, value: 3}"}]},
        "patches: [{target: {kind: Deployment}, patch: '- {op: replace, path: /spec/replicas, value: 3}'}]\n",
    ),
    "components": ({"components": ["../parts/nine"]}, "components: [../parts/nine]\n"),
    "components that may be missing": (
        {"components": ["../parts/nine", "../parts/none"], "ignoreMissingComponents": True},
        "components: [../parts/nine]\n",
    ),
}


@pytest.mark.parametrize("what", OPTIONS)
async def test_what_an_application_says_is_as_if_it_was_in_the_file(bench: Bench, repo: GitRepo, what: str) -> None:
    options, text = OPTIONS[what]
    parts = {
        "parts/nine/kustomization.yaml": "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\n"
        "replicas: [{name: web, count: 9}]\n"
    }
    own = "resources: [../base]\n"
    repo.commit({**BASE, **parts, "over/kustomization.yaml": own})
    found = await bench.render(kustomize=options)
    repo.write({"over/kustomization.yaml": own + text})
    assert ours(found) == real(repo.path / "over")


async def test_images_and_replicas_of_an_application_replace_those_of_the_file(bench: Bench, repo: GitRepo) -> None:
    """As `kustomize edit set image` does, which Argo CD runs: the same name is there once."""
    own = "resources: [../base]\nreplicas: [{name: web, count: 2}]\n"
    repo.commit({**BASE, "over/kustomization.yaml": own + "images: [{name: side, newName: moved, newTag: '1'}]\n"})
    found = await bench.render(kustomize={"images": ["side=side:9"], "replicas": [{"name": "web", "count": 3}]})
    (web,) = [each for each in ours(found) if each["kind"] == "Deployment"]
    assert web["spec"]["replicas"] == 3
    assert [each["image"] for each in web["spec"]["template"]["spec"]["containers"]][1] == "side:9"


# What is refused

REMOTE = [
    "https://example.com/x.yaml",
    "http://127.0.0.1:1/x.yaml",
    "github.com/kubernetes-sigs/kustomize/examples/helloWorld",
    "github.com/kubernetes-sigs/kustomize//examples?ref=v1",
    "git@github.com:kubernetes-sigs/kustomize.git",
    "git::https://example.com/x",
    "gh:org/repo",
    "host.example.com/repo.git/base?timeout=1s",
    "ssh://git@example.com/x",
    "file:///etc",
    "HTTPS://example.com/x",
]


@pytest.mark.parametrize("field", ["resources", "bases", "components", "generators", "crds", "configurations"])
@pytest.mark.parametrize("reference", REMOTE)
def test_nothing_remote_is_named(field: str, reference: str) -> None:
    with pytest.raises(SourceError, match="remote and not fetched") as raised:
        targets_of("over/kustomization.yaml", {field: ["../base", reference]})
    assert str(raised.value).startswith(f"over/kustomization.yaml: {field}: '{reference}'")


async def test_a_directory_that_looks_remote_is_refused_too(bench: Bench, repo: GitRepo) -> None:
    """Kustomize would fetch it, whether there is such a directory or not."""
    inner = "over/github.com/org/repo/kustomization.yaml"
    repo.commit({inner: "", "over/kustomization.yaml": "resources: [github.com/org/repo]\n"})
    with pytest.raises(SourceError, match="remote and not fetched"):
        await bench.render()


FILES = {
    "a patch": "patches: [{path: 'URL'}]",
    "an old patch": "patchesJson6902: [{target: {kind: X, name: x, version: v1}, path: 'URL'}]",
    "a merge": "patchesStrategicMerge: ['URL']",
    "a file": "configMapGenerator: [{name: x, files: ['a=URL']}]",
    "a file without a name": "secretGenerator: [{name: x, files: ['URL']}]",
    "an environment": "configMapGenerator: [{name: x, envs: ['URL']}]",
    "a replacement": "replacements: [{path: 'URL'}]",
    "a schema": "openapi: {path: 'URL'}",
    "a plugin inline": "generators:\n- |-\n  apiVersion: builtin\n  kind: ConfigMapGenerator\n  files: [URL]\n",
    "a plugin": "transformers: [plugin.yaml]",
    "a chart": "helmCharts: [{name: x, repo: 'URL'}]",
    "an overlay below": "resources: [inner]",
}


@pytest.mark.parametrize("what", FILES)
async def test_no_file_is_fetched(bench: Bench, repo: GitRepo, what: str) -> None:
    url = "http://127.0.0.1:1/secret.yaml"
    repo.commit(
        {
            "over/kustomization.yaml": FILES[what].replace("URL", url) + "\n",
            "over/plugin.yaml": f"apiVersion: builtin\nkind: PatchTransformer\nmetadata: {{name: x}}\npath: {url}\n",
            "over/inner/kustomization.yaml": f"patches: [{{path: '{url}'}}]\n",
        }
    )
    with pytest.raises(SourceError, match=r"not fetched"):
        await bench.render()
    assert bench.renderer.renders == 0


@pytest.mark.parametrize(
    ("files", "options", "why"),
    [
        ({"over/kustomization.yaml": "resources: [../../etc]"}, {}, "'../../etc' leads out of the repository"),
        ({"over/kustomization.yaml": "resources: [/etc/passwd]"}, {}, "'/etc/passwd' leads out of the repository"),
        ({"over/kustomization.yaml": "resources: [none.yaml]"}, {}, "'none.yaml' is not there"),
        ({"over/kustomization.yaml": "patches: [{path: ../base/web.yaml}]"}, {}, "kustomize, path over"),
        ({"over/kustomization.yaml": "configMapGenerator: [{name: x, files: [/etc/passwd]}]"}, {}, "kustomize, path"),
        ({"over/kustomization.yaml": "resources: [../over]"}, {}, "kustomize, path over"),
        (
            {"over/kustomization.yaml": "resources: [../base]"},
            {"components": ["../../x"]},
            "leads out of the repository",
        ),
        ({"over/kustomization.yaml": "resources: [../base]"}, {"components": ["../none"]}, "'../none' is not there"),
        (
            {"over/kustomization.yaml": "resources: [../base]"},
            {"components": ["https://example.com/x"]},
            "remote and not fetched",
        ),
        (
            {"over/kustomization.yaml": "resources: [../base]"},
            {"patches": [{"path": "https://example.com/x"}]},
            "remote and not fetched",
        ),
        (
            {"over/kustomization.yaml": "resources: [../base]\ncommonLabels: {a: b}"},
            {"commonLabels": {"a": "c"}},
            "forceCommonLabels",
        ),
    ],
)
async def test_what_is_refused(
    bench: Bench, repo: GitRepo, files: dict[str, str], options: dict[str, Any], why: str
) -> None:
    repo.commit({**BASE, **files})
    with pytest.raises(SourceError) as raised:
        await bench.render(kustomize=options or None)
    assert why in str(raised.value)
    assert "/tmp" not in str(raised.value)
