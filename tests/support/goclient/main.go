// Uses a server the way controllers do, through controller-runtime, and prints what it saw as one JSON object.
//
//	goclient KUBECONFIG NAMESPACE
//
// Built-in kinds travel as protobuf, informers begin with a streamed list. The namespace must exist, and the kind
// Ship of example.com/v1 be defined.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/go-logr/logr"
	appsapply "k8s.io/client-go/applyconfigurations/apps/v1"
	coreapply "k8s.io/client-go/applyconfigurations/core/v1"
	metaapply "k8s.io/client-go/applyconfigurations/meta/v1"
)

const protobuf = "application/vnd.kubernetes.protobuf"

// traffic counts protocols and media types of answers, and notes streamed lists.
type traffic struct {
	next  http.RoundTripper
	mutex sync.Mutex
	seen  map[string]int
}

func (t *traffic) RoundTrip(request *http.Request) (*http.Response, error) {
	answer, err := t.next.RoundTrip(request)
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if err != nil {
		t.seen["error"]++
		return answer, err
	}
	t.seen[answer.Proto]++
	t.seen[answer.Header.Get("Content-Type")]++
	if request.URL.Query().Get("sendInitialEvents") == "true" {
		t.seen["streamed list"]++
	}
	return answer, err
}

func (t *traffic) counts() map[string]int {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	copied := map[string]int{}
	for name, count := range t.seen {
		copied[name] = count
	}
	return copied
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func until(what string, true func() bool) {
	for end := time.Now().Add(20 * time.Second); !true(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			check(fmt.Errorf("it never came about: %s", what))
		}
	}
}

func main() {
	log.SetLogger(logr.Discard())
	config := must(clientcmd.BuildConfigFromFlags("", os.Args[1]))
	namespace := os.Args[2]
	config.QPS = -1
	seen := &traffic{seen: map[string]int{}}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { seen.next = next; return seen })
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()

	result := map[string]any{}
	// What takes protobuf alone for an answer cannot be given anything else.
	strict := rest.CopyConfig(config)
	strict.ContentType, strict.AcceptContentTypes = protobuf, protobuf
	writer := must(client.New(strict, client.Options{Scheme: scheme.Scheme}))
	either := must(client.New(config, client.Options{Scheme: scheme.Scheme}))
	built(ctx, writer, namespace, result)
	applied(ctx, either, namespace, result)
	custom(ctx, either, namespace, result)
	informed(ctx, strict, writer, configMap(namespace, "during"), "Map", result)
	informed(ctx, config, either, ship(namespace, "during", 5), "Ship", result)
	elected(ctx, strict, namespace, result)
	listed(ctx, strict, namespace, result)
	result["traffic"] = seen.counts()
	check(json.NewEncoder(os.Stdout).Encode(result))
}

func deployment(namespace string) *appsv1.Deployment {
	replicas := int32(2)
	labels := map[string]string{"app": "web"}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: namespace, Labels: labels},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "nginx"}}},
			},
		},
	}
}

// built has the life of a built-in object: created, read, updated, patched, its status written, deleted.
func built(ctx context.Context, c client.Client, namespace string, result map[string]any) {
	made := deployment(namespace)
	check(c.Create(ctx, made))
	found := &appsv1.Deployment{}
	key := client.ObjectKeyFromObject(made)
	check(c.Get(ctx, key, found))
	result["defaulted"] = string(found.Spec.Strategy.Type)
	stale := found.DeepCopy()
	found.Labels["updated"] = "yes"
	check(c.Update(ctx, found))
	stale.Labels["updated"] = "no"
	result["conflict"] = apierrors.IsConflict(c.Update(ctx, stale))
	base := found.DeepCopy()
	found.Spec.Template.Spec.Containers[0].Image = "nginx:2"
	check(c.Patch(ctx, found, client.StrategicMergeFrom(base)))
	base = found.DeepCopy()
	found.Annotations = map[string]string{"merged": "yes"}
	check(c.Patch(ctx, found, client.MergeFromWithOptions(base, client.MergeFromWithOptimisticLock{})))
	check(c.Patch(ctx, found, client.RawPatch(types.JSONPatchType, []byte(`[{"op":"replace","path":"/spec/replicas","value":3}]`))))
	found.Status.Replicas = 3
	found.Status.Conditions = []appsv1.DeploymentCondition{{Type: "Available", Status: "True", Reason: "R"}}
	check(c.Status().Update(ctx, found))
	check(c.Get(ctx, key, found))
	result["deployment"] = map[string]any{
		"image":      found.Spec.Template.Spec.Containers[0].Image,
		"replicas":   *found.Spec.Replicas,
		"status":     found.Status.Replicas,
		"condition":  string(found.Status.Conditions[0].Type),
		"annotation": found.Annotations["merged"],
		"label":      found.Labels["updated"],
		"generation": found.Generation,
	}
	result["exists"] = apierrors.IsAlreadyExists(c.Create(ctx, deployment(namespace)))
	wrong := deployment(namespace)
	wrong.Name = "wrong"
	*wrong.Spec.Replicas = -1
	err := c.Create(ctx, wrong)
	result["invalid"] = fmt.Sprint(apierrors.IsInvalid(err), " ", err)
	check(c.Delete(ctx, found, client.PropagationPolicy(metav1.DeletePropagationBackground)))
	result["gone"] = apierrors.IsNotFound(c.Get(ctx, key, found))
}

// applied applies on the server as two managers.
func applied(ctx context.Context, c client.Client, namespace string, result map[string]any) {
	wanted := appsapply.Deployment("applied", namespace).
		WithLabels(map[string]string{"by": "first"}).
		WithSpec(appsapply.DeploymentSpec().
			WithReplicas(2).
			WithSelector(metaapply.LabelSelector().WithMatchLabels(map[string]string{"app": "a"})).
			WithTemplate(coreapply.PodTemplateSpec().
				WithLabels(map[string]string{"app": "a"}).
				WithSpec(coreapply.PodSpec().WithContainers(coreapply.Container().WithName("a").WithImage("x")))))
	check(c.Apply(ctx, wanted, client.FieldOwner("first")))
	other := appsapply.Deployment("applied", namespace).WithSpec(appsapply.DeploymentSpec().WithReplicas(5))
	err := c.Apply(ctx, other, client.FieldOwner("second"))
	result["applyConflict"] = fmt.Sprint(apierrors.IsConflict(err), " ", err)
	check(c.Apply(ctx, other, client.FieldOwner("second"), client.ForceOwnership))
	found := &appsv1.Deployment{}
	check(c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "applied"}, found))
	managers := []string{}
	for _, each := range found.ManagedFields {
		managers = append(managers, each.Manager+" "+string(each.Operation))
	}
	result["applied"] = map[string]any{"replicas": *found.Spec.Replicas, "managers": managers}
}

func ship(namespace, name string, crew int64) *unstructured.Unstructured {
	made := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"crew": crew}}}
	made.SetGroupVersionKind(schema.GroupVersionKind{Group: "example.com", Version: "v1", Kind: "Ship"})
	made.SetNamespace(namespace)
	made.SetName(name)
	return made
}

// custom has the life of a custom object.
func custom(ctx context.Context, c client.Client, namespace string, result map[string]any) {
	made := ship(namespace, "ship", 3)
	check(c.Create(ctx, made))
	base := made.DeepCopy()
	check(unstructured.SetNestedField(made.Object, int64(4), "spec", "crew"))
	check(c.Patch(ctx, made, client.MergeFrom(base)))
	check(unstructured.SetNestedField(made.Object, int64(4), "status", "crew"))
	check(c.Status().Update(ctx, made))
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(schema.GroupVersionKind{Group: "example.com", Version: "v1", Kind: "ShipList"})
	check(c.List(ctx, list, client.InNamespace(namespace)))
	result["ship"] = map[string]any{"spec": list.Items[0].Object["spec"], "status": list.Items[0].Object["status"]}
	wrong := ship(namespace, "wrong", 3)
	check(unstructured.SetNestedField(wrong.Object, "many", "spec", "crew"))
	err := c.Create(ctx, wrong)
	result["wrongShip"] = fmt.Sprint(apierrors.IsInvalid(err), " ", err)
}

// informed follows objects of one kind through a cache, as controllers do: one that is there, and one that comes and goes.
func informed(ctx context.Context, config *rest.Config, c client.Client, made client.Object, kind string, result map[string]any) {
	before := made.DeepCopyObject().(client.Object)
	before.SetName("before")
	check(c.Create(ctx, before))
	local, stop := context.WithCancel(ctx)
	defer stop()
	scope := map[string]cache.Config{made.GetNamespace(): {}}
	followed := must(cache.New(config, cache.Options{Scheme: scheme.Scheme, DefaultNamespaces: scope}))
	events := map[string]int{}
	var mutex sync.Mutex
	note := func(what string, object any) {
		mutex.Lock()
		defer mutex.Unlock()
		if meta, ok := object.(client.Object); ok {
			events[what+" "+meta.GetName()]++
		}
	}
	count := func(name string) int { mutex.Lock(); defer mutex.Unlock(); return events[name] }
	informer := must(followed.GetInformer(ctx, made, cache.BlockUntilSynced(false)))
	must(informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { note("add", object) },
		UpdateFunc: func(_, object any) { note("update", object) },
		DeleteFunc: func(object any) { note("delete", object) },
	}))
	go func() { check(followed.Start(local)) }()
	if !followed.WaitForCacheSync(ctx) {
		check(fmt.Errorf("the cache was never filled"))
	}
	until("the first object", func() bool { return count("add before") == 1 })
	check(c.Create(ctx, made))
	until("a creation", func() bool { return count("add during") == 1 })
	made.SetLabels(map[string]string{"a": "c"})
	check(c.Update(ctx, made))
	until("an update", func() bool { return count("update during") == 1 })
	read := made.DeepCopyObject().(client.Object)
	check(followed.Get(ctx, client.ObjectKeyFromObject(made), read))
	check(c.Delete(ctx, made))
	until("a deletion", func() bool { return count("delete during") == 1 })
	mutex.Lock()
	defer mutex.Unlock()
	result["events"+kind] = events
	result["cached"+kind] = read.GetLabels()
}

func configMap(namespace, name string) *corev1.ConfigMap {
	metadata := metav1.ObjectMeta{Name: name, Namespace: namespace}
	return &corev1.ConfigMap{ObjectMeta: metadata, Data: map[string]string{"a": "b"}, BinaryData: map[string][]byte{"x": {0, 255}}}
}

// elected makes two candidates hold a lease one after the other.
func elected(ctx context.Context, config *rest.Config, namespace string, result map[string]any) {
	clients := must(kubernetes.NewForConfig(config))
	leaders := []string{}
	for _, identity := range []string{"one", "two"} {
		local, stop := context.WithCancel(ctx)
		lock := &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Name: "leader", Namespace: namespace},
			Client:     clients.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: identity},
		}
		leaderelection.RunOrDie(local, leaderelection.LeaderElectionConfig{
			Lock:            lock,
			LeaseDuration:   3 * time.Second,
			RenewDeadline:   2 * time.Second,
			RetryPeriod:     100 * time.Millisecond,
			ReleaseOnCancel: true,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(context.Context) { leaders = append(leaders, identity); stop() },
				OnStoppedLeading: func() {},
			},
		})
		stop()
	}
	lease := must(clients.CoordinationV1().Leases(namespace).Get(ctx, "leader", metav1.GetOptions{}))
	result["leaders"] = leaders
	result["transitions"] = transitions(lease)
}

func transitions(lease *coordinationv1.Lease) int32 {
	if lease.Spec.LeaseTransitions == nil {
		return 0
	}
	return *lease.Spec.LeaseTransitions
}

// listed reads in pages, and metadata alone.
func listed(ctx context.Context, config *rest.Config, namespace string, result map[string]any) {
	clients := must(kubernetes.NewForConfig(config))
	maps := clients.CoreV1().ConfigMaps(namespace)
	for index := range 7 {
		must(maps.Create(ctx, configMap(namespace, fmt.Sprintf("page-%d", index)), metav1.CreateOptions{}))
	}
	names, pages, token := 0, 0, ""
	for {
		found := must(maps.List(ctx, metav1.ListOptions{Limit: 3, Continue: token}))
		names, pages, token = names+len(found.Items), pages+1, found.Continue
		if token == "" {
			break
		}
	}
	c := must(client.New(config, client.Options{Scheme: scheme.Scheme}))
	partial := &metav1.PartialObjectMetadataList{}
	partial.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("ConfigMapList"))
	check(c.List(ctx, partial, client.InNamespace(namespace)))
	binary := must(maps.Get(ctx, "page-0", metav1.GetOptions{})).BinaryData["x"]
	result["pages"] = map[string]any{"names": names, "pages": pages, "partial": len(partial.Items), "binary": binary}
	version := must(clients.Discovery().ServerVersion())
	result["version"] = version.Major + "." + version.Minor
	check(maps.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{FieldSelector: "metadata.name!=kube-root-ca.crt"}))
	result["left"] = len(must(maps.List(ctx, metav1.ListOptions{FieldSelector: "metadata.name!=kube-root-ca.crt"})).Items)
}
