// Package gateway runs the official conformance suite of Gateway API against the cluster of a kubeconfig.
package gateway

import (
	"flag"
	"io/fs"
	"strings"
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
)

var echo = flag.String("echo", "", "command of the echo backend, its words apart by spaces; empty for the suite's own images")

func TestConformance(t *testing.T) {
	options := conformance.DefaultOptions(t)
	if *echo != "" {
		options.ManifestFS = []fs.FS{echoed{FS: &conformance.Manifests, command: strings.Fields(*echo)}}
	}
	conformance.RunConformanceWithOptions(t, options)
}
