// Converts Kubernetes objects between JSON and protobuf with Kubernetes' own code, and tells how its types are made.
//
// Each line of standard input is one request, each line of standard output its answer:
//
//	{"json": OBJECT}     gives {"protobuf": BASE64, "json": OBJECT as decoded from that protobuf}
//	{"protobuf": BASE64} gives {"json": OBJECT}
//	{"event": TYPE, "json": OBJECT} gives {"protobuf": BASE64 of the frame of a watch}
//
// or {"error": TEXT}. With the argument "facts" it writes the facts of all types instead and reads nothing.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"sort"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	eventsv1 "k8s.io/api/events/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	resourcev1 "k8s.io/api/resource/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	jsonserializer "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

var scheme = runtime.NewScheme()

var adders = []func(*runtime.Scheme) error{
	admissionv1.AddToScheme, admissionregistrationv1.AddToScheme, apidiscoveryv2.AddToScheme, appsv1.AddToScheme,
	authenticationv1.AddToScheme, authorizationv1.AddToScheme, autoscalingv1.AddToScheme, autoscalingv2.AddToScheme,
	batchv1.AddToScheme, certificatesv1.AddToScheme, coordinationv1.AddToScheme, corev1.AddToScheme,
	discoveryv1.AddToScheme, eventsv1.AddToScheme, flowcontrolv1.AddToScheme, networkingv1.AddToScheme,
	nodev1.AddToScheme, policyv1.AddToScheme, rbacv1.AddToScheme, resourcev1.AddToScheme, schedulingv1.AddToScheme,
	storagev1.AddToScheme, apiextensionsv1.AddToScheme, apiregistrationv1.AddToScheme, metav1.AddMetaToScheme,
}

// must ends the program where what cannot fail failed.
func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type request struct {
	JSON     json.RawMessage `json:"json,omitempty"`
	Protobuf []byte          `json:"protobuf,omitempty"`
	Event    string          `json:"event,omitempty"`
	Error    string          `json:"error,omitempty"`
}

type codec struct{ json, protobuf runtime.Serializer }

func (c codec) toJSON(data []byte) (request, error) {
	object, _, err := c.protobuf.Decode(data, nil, nil)
	if err != nil {
		return request{}, err
	}
	out := &bytes.Buffer{}
	err = c.json.Encode(object, out)
	return request{JSON: out.Bytes()}, err
}

func (c codec) toProtobuf(data []byte, event string) (request, error) {
	object, _, err := c.json.Decode(data, nil, nil)
	if err != nil {
		return request{}, err
	}
	out := &bytes.Buffer{}
	if err := c.protobuf.Encode(object, out); err != nil {
		return request{}, err
	}
	if event == "" {
		answer, err := c.toJSON(out.Bytes())
		answer.Protobuf = out.Bytes()
		return answer, err
	}
	frame := &bytes.Buffer{}
	what := &metav1.WatchEvent{Type: event, Object: runtime.RawExtension{Raw: out.Bytes()}}
	writer := protobuf.LengthDelimitedFramer.NewFrameWriter(frame)
	err = protobuf.NewRawSerializer(scheme, scheme).Encode(what, writer)
	return request{Protobuf: frame.Bytes()}, err
}

func (c codec) answer(line []byte) request {
	asked, given := request{}, request{}
	err := json.Unmarshal(line, &asked)
	if err == nil && asked.Protobuf != nil {
		given, err = c.toJSON(asked.Protobuf)
	} else if err == nil {
		given, err = c.toProtobuf(asked.JSON, asked.Event)
	}
	if err != nil {
		return request{Error: err.Error()}
	}
	return given
}

type field struct {
	Name      string `json:"name"`
	JSON      string `json:"json"`
	Pointer   bool   `json:"pointer,omitempty"`
	OmitEmpty bool   `json:"omitEmpty,omitempty"`
	OmitZero  bool   `json:"omitZero,omitempty"`
	Go        string `json:"go"`
}

// visit notes the fields of a type and of those it leads to.
func visit(found map[string]map[string]field, at reflect.Type) {
	for at.Kind() == reflect.Pointer || at.Kind() == reflect.Slice || at.Kind() == reflect.Map {
		at = at.Elem()
	}
	name := at.PkgPath() + "." + at.Name()
	if _, known := found[name]; known || at.Kind() != reflect.Struct || !strings.HasPrefix(at.PkgPath(), "k8s.io/") {
		return
	}
	fields := map[string]field{}
	found[name] = fields
	for index := range at.NumField() {
		one := at.Field(index)
		visit(found, one.Type)
		tag := strings.Split(one.Tag.Get("protobuf"), ",")
		if len(tag) < 2 {
			continue
		}
		words := strings.Split(one.Tag.Get("json"), ",")
		fact := field{JSON: words[0], Pointer: one.Type.Kind() == reflect.Pointer, Go: one.Type.String()}
		for _, word := range words[1:] {
			fact.OmitEmpty = fact.OmitEmpty || word == "omitempty"
			fact.OmitZero = fact.OmitZero || word == "omitzero"
		}
		for _, word := range tag {
			if strings.HasPrefix(word, "name=") {
				fact.Name = word[len("name="):]
			}
		}
		fields[tag[1]] = fact
	}
}

func facts() {
	found, kinds := map[string]map[string]field{}, []string{}
	for kind, at := range scheme.AllKnownTypes() {
		visit(found, at)
		kinds = append(kinds, fmt.Sprintf("%s/%s/%s %s.%s", kind.Group, kind.Version, kind.Kind, at.PkgPath(), at.Name()))
	}
	visit(found, reflect.TypeFor[metav1.List]())
	visit(found, reflect.TypeFor[metav1.APIGroup]())
	sort.Strings(kinds)
	must(json.NewEncoder(os.Stdout).Encode(map[string]any{"types": found, "kinds": kinds}))
}

func main() {
	for _, add := range adders {
		must(add(scheme))
	}
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	if len(os.Args) > 1 && os.Args[1] == "facts" {
		facts()
		return
	}
	with := codec{
		jsonserializer.NewSerializerWithOptions(jsonserializer.DefaultMetaFactory, scheme, scheme, jsonserializer.SerializerOptions{}),
		protobuf.NewSerializer(scheme, scheme),
	}
	lines, out := bufio.NewReaderSize(os.Stdin, 1<<20), json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	for {
		line, err := lines.ReadBytes('\n')
		if len(bytes.TrimSpace(line)) > 0 {
			must(out.Encode(with.answer(line)))
		}
		if err != nil {
			return
		}
	}
}
