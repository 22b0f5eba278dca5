"""Application, AppProject and ApplicationSet with all fields of Argo CD's reference: each is kept as it is written."""

from __future__ import annotations

from typing import Any

import yaml

from pilothouse.client import Client
from pilothouse.delivery.gitops import GITOPS_KINDS
from pilothouse.delivery.resources.installing import install_kinds
from pilothouse.kinds.structs import to_dict
from pilothouse.testing import ControlPlane
from support.shapes import lost

HEAD = "apiVersion: argoproj.io/v1alpha1\n"
APPLICATION = """
kind: Application
metadata:
  name: shop
  labels: {team: cart}
  finalizers: [resources-finalizer.argocd.argoproj.io/background]
spec:
  project: default
  source:
    repoURL: https://git.example/shop.git
    targetRevision: main
    path: deploy
    chart: shop
    helm:
      passCredentials: false
      parameters: [{name: image.tag, value: "2", forceString: true}]
      fileParameters: [{name: config, path: files/config.json}]
      releaseName: shop
      valueFiles: [values-eu.yaml]
      ignoreMissingValueFiles: true
      values: "a: 1"
      valuesObject: {ingress: {enabled: true, hosts: [shop.example], annotations: {example.com/x: "y"}}}
      skipCrds: false
      skipSchemaValidation: false
      version: v3
      kubeVersion: 1.33.0
      apiVersions: [monitoring.coreos.com/v1]
      namespace: shop
    kustomize:
      version: v5.4.1
      namePrefix: eu-
      nameSuffix: -eu
      namespace: shop
      commonLabels: {team: cart}
      commonAnnotations: {about: "${APP}"}
      commonAnnotationsEnvsubst: true
      forceCommonLabels: false
      forceCommonAnnotations: false
      labelWithoutSelector: true
      labelIncludeTemplates: true
      images: [shop=registry.example/shop:2]
      replicas: [{name: shop, count: 3}]
      components: [../component]
      ignoreMissingComponents: true
      patches: [{target: {kind: Deployment, name: shop}, patch: "- {op: remove, path: /spec/paused}"}]
      kubeVersion: 1.33.0
      apiVersions: [v1]
    directory:
      recurse: true
      include: "*.yaml"
      exclude: "test-*"
      jsonnet:
        extVars: [{name: a, value: b}, {name: c, code: true, value: "1"}]
        tlas: [{name: d, value: e, code: false}]
    plugin:
      name: own
      env: [{name: A, value: b}]
      parameters: [{name: one, string: a}, {name: many, array: [a, b]}, {name: named, map: {a: b}}]
  sources:
  - {repoURL: https://git.example/values.git, targetRevision: main, ref: values, name: values, path: eu}
  sourceHydrator:
    drySource: {repoURL: https://git.example/shop.git, path: dry, targetRevision: main}
    syncSource: {targetBranch: env/eu, path: shop}
  destination: {server: "https://kubernetes.default.svc", namespace: shop}
  info: [{name: home, value: https://shop.example}]
  syncPolicy:
    automated: {prune: true, selfHeal: true, allowEmpty: false, enabled: true}
    syncOptions: [Validate=false, CreateNamespace=true, ServerSideApply=true]
    managedNamespaceMetadata: {labels: {team: cart}, annotations: {about: shop}}
    retry: {limit: 5, refresh: true, backoff: {duration: 5s, factor: 2, maxDuration: 3m}}
  ignoreDifferences:
  - {group: apps, kind: Deployment, jsonPointers: [/spec/replicas]}
  - {kind: ConfigMap, name: shop, namespace: shop, jqPathExpressions: [".data.a"]}
  - {group: "*", kind: "*", managedFieldsManagers: [kube-controller-manager]}
  revisionHistoryLimit: 10
"""
PROJECT = """
kind: AppProject
metadata: {name: shop}
spec:
  description: the shop
  sourceRepos: ["*", "!https://git.example/secret.git"]
  sourceNamespaces: [team-*]
  destinations: [{namespace: shop, server: "https://kubernetes.default.svc", name: here}]
  clusterResourceWhitelist: [{group: "", kind: Namespace, name: "shop-*"}]
  clusterResourceBlacklist: [{group: "", kind: Node, name: one}]
  namespaceResourceBlacklist: [{group: "", kind: ResourceQuota}]
  namespaceResourceWhitelist: [{group: apps, kind: Deployment}]
  orphanedResources: {warn: false, ignore: [{group: "", kind: ConfigMap, name: kube-root-ca.crt}]}
  permitOnlyProjectScopedClusters: false
  roles:
  - name: ci
    description: for pipelines
    policies: ["p, proj:shop:ci, applications, sync, shop/*, allow"]
    groups: [cart]
    jwtTokens: [{iat: 1535390316, exp: 1735390316, id: one}]
  signatureKeys: [{keyID: 4AEE18F83AFDEB23}]
  destinationServiceAccounts: [{server: "*", namespace: "*", defaultServiceAccount: shop}]
  syncWindows:
  - kind: allow
    schedule: "10 1 * * *"
    duration: 1h
    applications: ["*-prod"]
    manualSync: true
    timeZone: Europe/Berlin
    andOperator: true
    syncOverrun: true
    description: at night
  - {kind: deny, schedule: "0 22 * * *", duration: 1h, namespaces: [shop], clusters: [eu, in-cluster]}
"""
SET = """
kind: ApplicationSet
metadata: {name: shop}
spec:
  goTemplate: true
  goTemplateOptions: [missingkey=error]
  generators:
  - list:
      elements: [{cluster: eu, url: "https://eu.example", env: prod}]
      elementsYaml: "- {cluster: us}"
      template: {metadata: {}, spec: {project: default, destination: {}, source: {repoURL: "https://git.example/a.git"}}}
    selector: {matchLabels: {env: prod}, matchExpressions: [{key: env, operator: In, values: [prod]}]}
  - clusters: {selector: {matchLabels: {env: prod}}, flatList: true, values: {a: b}}
  - git:
      repoURL: https://git.example/apps.git
      revision: HEAD
      directories: [{path: apps/*}, {path: apps/old, exclude: true}]
      pathParamPrefix: app
      requeueAfterSeconds: 60
      values: {cluster: "{{.path.basename}}"}
  - git: {repoURL: "https://git.example/apps.git", revision: HEAD, files: [{path: "apps/**/config.json"}]}
  - matrix:
      generators:
      - list: {elements: [{a: b}]}
      - git: {repoURL: "https://git.example/apps.git", revision: HEAD, directories: [{path: "*"}]}
  - merge:
      mergeKeys: [server]
      generators:
      - clusters: {values: {kafka: "true"}}
      - list: {elements: [{server: "https://eu.example", values.kafka: "false"}]}
  - scmProvider:
      cloneProtocol: ssh
      github: {organization: shop, api: "https://git.example", allBranches: true, tokenRef: {secretName: t, key: token}}
      filters: [{repositoryMatch: ^shop, pathsExist: [deploy], pathsDoNotExist: [x], labelMatch: ok, branchMatch: a}]
  - pullRequest:
      github: {owner: shop, repo: shop, labels: [preview], tokenRef: {secretName: t, key: token}}
      filters: [{branchMatch: ".*", titleMatch: "^feat"}]
      requeueAfterSeconds: 600
      continueOnRepoNotFoundError: true
  - clusterDecisionResource:
      configMapRef: decisions
      name: shop
      requeueAfterSeconds: 180
      labelSelector: {matchLabels: {duck: all}}
  - plugin:
      configMapRef: {name: own}
      input: {parameters: {a: b, many: [1, two, true], named: {a: b}}}
      requeueAfterSeconds: 30
      values: {a: b}
  template:
    metadata: {name: "{{.cluster}}-shop", labels: {env: prod}, annotations: {a: b}, finalizers: [example.com/keep]}
    spec:
      project: default
      source: {repoURL: "https://git.example/shop.git", targetRevision: HEAD, path: deploy}
      destination: {server: "{{.url}}", namespace: shop}
      syncPolicy: {automated: {selfHeal: true}, syncOptions: [CreateNamespace=true]}
  templatePatch: |
    spec: {syncPolicy: {automated: {prune: true}}}
  syncPolicy: {applicationsSync: create-update, preserveResourcesOnDeletion: true}
  preservedFields: {annotations: [about], labels: [team]}
  ignoreApplicationDifferences:
  - {name: eu-shop, jsonPointers: [/spec/source/targetRevision], jqPathExpressions: [.spec.info]}
  applyNestedSelectors: true
  strategy:
    type: RollingSync
    deletionOrder: Reverse
    rollingSync:
      steps:
      - {matchExpressions: [{key: env, operator: In, values: [dev]}]}
      - {matchExpressions: [{key: env, operator: In, values: [prod]}], maxUpdate: 10%}
"""


async def test_every_field_is_kept_and_read_back() -> None:
    async with ControlPlane() as plane, Client.for_transport(plane.transport, plane.user) as client:
        await install_kinds(client, GITOPS_KINDS)
        for text in (APPLICATION, PROJECT, SET):
            tree: dict[str, Any] = yaml.safe_load(HEAD + text)
            kept = await client.dynamic(tree["apiVersion"], tree["kind"]).apply(tree, force=True)
            assert not [*lost(tree, kept)]
            kind = next(one for one in GITOPS_KINDS if one.__name__ == tree["kind"])
            assert to_dict(await client.get(kind, "shop"))["spec"]
