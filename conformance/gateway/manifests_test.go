package gateway

import (
	"bytes"
	"io/fs"
	"path"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// echoed stands before the suite's manifests: containers of its images, which are not pulled, run a command of this
// machine instead: those of the echo backend ours, the name server, which only UDP is tried with, nothing at all.
// Everything else is passed on as it is.
type echoed struct {
	fs.FS
	command []string
}

const (
	registry  = "registry.k8s.io/"
	echoImage = registry + "gateway-api/echo-basic:"
)

var idle = []string{"sleep", "infinity"}

func (e echoed) Open(name string) (fs.File, error) {
	file, err := e.FS.Open(name)
	if err != nil || path.Ext(name) != ".yaml" {
		return file, err
	}
	defer file.Close()
	data, err := fs.ReadFile(e.FS, name)
	if err != nil {
		return nil, err
	}
	if bytes.Contains(data, []byte(registry)) {
		if data, err = e.rewrite(data); err != nil {
			return nil, &fs.PathError{Op: "open", Path: name, Err: err}
		}
	}
	return &written{Reader: bytes.NewReader(data), name: path.Base(name), size: int64(len(data))}, nil
}

func (e echoed) rewrite(data []byte) ([]byte, error) {
	var out bytes.Buffer
	for _, document := range strings.Split(string(data), "\n---\n") {
		if strings.Contains(document, registry) {
			var object map[string]any
			if err := yaml.Unmarshal([]byte(document), &object); err != nil {
				return nil, err
			}
			e.walk(object)
			text, err := yaml.Marshal(object)
			if err != nil {
				return nil, err
			}
			document = string(text)
		}
		out.WriteString(strings.TrimRight(document, "\n") + "\n---\n")
	}
	return out.Bytes(), nil
}

func (e echoed) walk(value any) {
	switch found := value.(type) {
	case map[string]any:
		if image, ok := found["image"].(string); ok && strings.HasPrefix(image, registry) {
			found["image"], found["command"] = "host", idle
			if strings.HasPrefix(image, echoImage) {
				found["command"] = e.command
			}
			for _, name := range []string{"args", "livenessProbe", "readinessProbe", "securityContext"} {
				delete(found, name)
			}
		}
		for _, below := range found {
			e.walk(below)
		}
	case []any:
		for _, below := range found {
			e.walk(below)
		}
	}
}

type written struct {
	*bytes.Reader
	name string
	size int64
}

func (w *written) Stat() (fs.FileInfo, error) { return w, nil }
func (w *written) Close() error               { return nil }
func (w *written) Name() string               { return w.name }
func (w *written) Size() int64                { return w.size }
func (w *written) Mode() fs.FileMode          { return 0o444 }
func (w *written) ModTime() time.Time         { return time.Time{} }
func (w *written) IsDir() bool                { return false }
func (w *written) Sys() any                   { return nil }
