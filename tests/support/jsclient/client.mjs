// Uses a server through @kubernetes/client-node, and prints what it saw as one JSON object.
//
//   node client.mjs KUBECONFIG NAMESPACE
//
// The namespace must exist, and the kind Ship of example.com/v1 be defined.
import * as k8s from '@kubernetes/client-node';

const [file, namespace] = process.argv.slice(2);
const config = new k8s.KubeConfig();
config.loadFromFile(file);
const core = config.makeApiClient(k8s.CoreV1Api);
const apps = config.makeApiClient(k8s.AppsV1Api);
const custom = config.makeApiClient(k8s.CustomObjectsApi);
const objects = k8s.KubernetesObjectApi.makeApiClient(config);
const result = {};

async function until(what, true_) {
    const end = Date.now() + 20000;
    while (!true_()) {
        if (Date.now() > end) throw new Error(`it never came about: ${what}`);
        await new Promise((resolve) => setTimeout(resolve, 5));
    }
}

async function refused(asked) {
    try {
        await asked;
    } catch (error) {
        const body = typeof error.body === 'string' ? JSON.parse(error.body) : error.body;
        return { code: error.code, reason: body.reason, message: body.message };
    }
    return null;
}

const configMap = (name, data) => ({ metadata: { name }, data });

async function basics() {
    await core.createNamespacedConfigMap({ namespace, body: configMap('a', { x: '1' }) });
    const found = await core.readNamespacedConfigMap({ namespace, name: 'a' });
    result.created = found.metadata.creationTimestamp instanceof Date;
    found.data = { x: '2' };
    await core.replaceNamespacedConfigMap({ namespace, name: 'a', body: found });
    result.conflict = await refused(core.replaceNamespacedConfigMap({ namespace, name: 'a', body: found }));
    const merge = k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.MergePatch);
    await core.patchNamespacedConfigMap({ namespace, name: 'a', body: { data: { y: '3' } } }, merge);
    const patch = k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.JsonPatch);
    const steps = [{ op: 'add', path: '/data/z', value: '4' }];
    result.patched = (await core.patchNamespacedConfigMap({ namespace, name: 'a', body: steps }, patch)).data;
    const listed = await core.listNamespacedConfigMap({ namespace, fieldSelector: 'metadata.name=a' });
    result.listed = listed.items.map((each) => each.metadata.name);
    const first = await core.listNamespacedConfigMap({ namespace, limit: 1 });
    const second = await core.listNamespacedConfigMap({ namespace, limit: 1, _continue: first.metadata._continue });
    result.pages = [...first.items, ...second.items].map((each) => each.metadata.name);
    result.absent = await refused(core.readNamespacedConfigMap({ namespace, name: 'absent' }));
    await core.deleteNamespacedConfigMap({ namespace, name: 'a' });
    result.gone = (await refused(core.readNamespacedConfigMap({ namespace, name: 'a' }))).reason;
}

async function applied() {
    const apply = k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.ServerSideApply);
    const wanted = (value) => ({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'applied', namespace }, data: { x: value } });
    const send = (value, fieldManager, force) =>
        core.patchNamespacedConfigMap({ namespace, name: 'applied', body: wanted(value), fieldManager, force }, apply);
    await send('1', 'first');
    result.applyConflict = await refused(send('2', 'second'));
    const forced = await send('2', 'second', true);
    result.applied = { data: forced.data, managers: forced.metadata.managedFields.map((each) => each.manager) };
}

async function deployments() {
    const labels = { app: 'web' };
    const template = { metadata: { labels }, spec: { containers: [{ name: 'web', image: 'nginx' }] } };
    const body = { apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name: 'web', namespace }, spec: { selector: { matchLabels: labels }, template } };
    const made = await objects.create(body);
    made.status = { ...made.status, replicas: 1 };
    await apps.replaceNamespacedDeploymentStatus({ namespace, name: 'web', body: made });
    const scale = await apps.readNamespacedDeploymentScale({ namespace, name: 'web' });
    scale.spec.replicas = 4;
    await apps.replaceNamespacedDeploymentScale({ namespace, name: 'web', body: scale });
    const found = await apps.readNamespacedDeployment({ namespace, name: 'web' });
    result.deployment = { wanted: found.spec.replicas, there: found.status.replicas, selector: scale.status.selector };
}

async function customs() {
    const place = { group: 'example.com', version: 'v1', namespace, plural: 'ships' };
    const body = (crew) => ({ apiVersion: 'example.com/v1', kind: 'Ship', metadata: { name: 's' }, spec: { crew } });
    await custom.createNamespacedCustomObject({ ...place, body: body(3) });
    const found = await custom.getNamespacedCustomObject({ ...place, name: 's' });
    found.spec.crew = 5;
    await custom.replaceNamespacedCustomObject({ ...place, name: 's', body: found });
    const listed = await custom.listNamespacedCustomObject(place);
    result.ship = listed.items[0].spec;
    result.wrongShip = await refused(custom.createNamespacedCustomObject({ ...place, body: body('many') }));
}

async function watched() {
    const seen = [];
    const path = `/api/v1/namespaces/${namespace}/configmaps`;
    const query = { fieldSelector: 'metadata.name=w', allowWatchBookmarks: true };
    const watch = new k8s.Watch(config);
    const request = await watch.watch(path, query, (type, object) => seen.push(`${type} ${object.metadata.name}`), () => {});
    await core.createNamespacedConfigMap({ namespace, body: configMap('w', {}) });
    await until('an addition', () => seen.includes('ADDED w'));
    await core.deleteNamespacedConfigMap({ namespace, name: 'w' });
    await until('a deletion', () => seen.includes('DELETED w'));
    request.abort();
    result.watched = seen;
}

async function informed() {
    await core.createNamespacedConfigMap({ namespace, body: configMap('before', {}) });
    const seen = [];
    const list = () => core.listNamespacedConfigMap({ namespace, labelSelector: '!none' });
    const informer = k8s.makeInformer(config, `/api/v1/namespaces/${namespace}/configmaps`, list);
    for (const verb of ['add', 'update', 'delete']) informer.on(verb, (object) => seen.push(`${verb} ${object.metadata.name}`));
    await informer.start();
    await until('the first object', () => seen.includes('add before'));
    await core.createNamespacedConfigMap({ namespace, body: configMap('during', { x: '1' }) });
    await until('an addition', () => seen.includes('add during'));
    await core.replaceNamespacedConfigMap({ namespace, name: 'during', body: configMap('during', { x: '2' }) });
    await until('an update', () => seen.includes('update during'));
    result.cached = informer.get('during', namespace).data;
    await core.deleteNamespacedConfigMap({ namespace, name: 'during' });
    await until('a deletion', () => seen.includes('delete during'));
    await informer.stop();
    result.informed = seen.filter((line) => line.endsWith(' before') || line.endsWith(' during'));
}

for (const part of [basics, applied, deployments, customs, watched, informed]) await part();
console.log(JSON.stringify(result));
process.exit(0);
