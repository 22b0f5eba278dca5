// Follows a server's pods or ConfigMaps as operators in Go do, through controller-runtime: a cache for the start, a
// manager with a reconciler that does nothing for changes. Prints what bench/_followers.py reads.
//
//	follower [client, kubeconfig, objects, base, changes, limit, plural, handles]
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

const (
	mark      = "bench"
	namespace = "default"
)

type task struct {
	config                 string
	objects, base, changes int
	limit                  time.Duration
	plural                 string
	handles                bool
}

type follower struct {
	task
	mutex            sync.Mutex
	first            int
	numbers          []int
	times            []float64
	finals           map[int]bool
	begun            time.Time
	used, eventsUsed float64
	seconds, cpu     float64
	before           map[string]int
	timer            *time.Timer
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func read(argument string) task {
	var values []any
	check(json.Unmarshal([]byte(argument), &values))
	number := func(index int) int { return int(values[index].(float64)) }
	return task{
		values[1].(string), number(2), number(3), number(4),
		time.Duration(values[5].(float64) * float64(time.Second)), values[6].(string), values[7].(bool),
	}
}

func monotonic() float64 {
	var now unix.Timespec
	check(unix.ClockGettime(unix.CLOCK_MONOTONIC, &now))
	return float64(now.Sec) + float64(now.Nsec)/1e9
}

func processor() float64 {
	var usage syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}

func memory() map[string]int {
	found := map[string]int{}
	for _, path := range []string{"/proc/self/smaps_rollup", "/proc/self/status"} {
		data, err := os.ReadFile(path)
		check(err)
		lines := bufio.NewScanner(bytes.NewReader(data))
		for lines.Scan() {
			if fields := strings.Fields(lines.Text()); len(fields) == 3 && fields[2] == "kB" {
				size, _ := strconv.Atoi(fields[1])
				found[strings.TrimSuffix(fields[0], ":")] = size * 1024
			}
		}
	}
	return found
}

func (f *follower) restart() {
	if f.timer != nil {
		f.timer.Stop()
	}
	f.timer = time.AfterFunc(f.limit, func() {
		f.mutex.Lock()
		f.end(false)
	})
}

func (f *follower) object(annotations map[string]string) {
	now := monotonic()
	number := -1
	if text := annotations[mark]; text != "" {
		number, _ = strconv.Atoi(text)
	}
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if number < f.base {
		f.first++
		if f.first == f.objects {
			f.cached()
		}
		return
	}
	f.numbers, f.times = append(f.numbers, number), append(f.times, now)
	last := min(f.objects, f.changes)
	if number >= f.base+f.changes-last {
		f.finals[number] = true
		if len(f.finals) == last {
			f.end(true)
		}
	}
}

func (f *follower) cached() {
	f.seconds, f.cpu = time.Since(f.begun).Seconds(), processor()-f.used
	if f.changes == 0 {
		f.end(true)
	}
	f.eventsUsed = processor()
	f.restart()
	fmt.Println("ready")
}

func (f *follower) end(complete bool) {
	ended, eventsCPU := monotonic(), processor()-f.eventsUsed
	if f.seconds == 0 {
		f.seconds, f.cpu = time.Since(f.begun).Seconds(), processor()-f.used
	}
	runtime.GC()
	now := memory()
	seen := make([][2]float64, len(f.numbers))
	for index, number := range f.numbers {
		seen[index] = [2]float64{float64(number), f.times[index]}
	}
	check(json.NewEncoder(os.Stdout).Encode(map[string]any{
		"complete": complete, "objects": f.first, "seconds": f.seconds, "cpu": f.cpu, "before": f.before["Rss"],
		"resident": now["Rss"], "unique": now["Private_Clean"] + now["Private_Dirty"], "peak": now["VmHWM"],
		"calls": len(seen), "events_cpu": eventsCPU, "seen": seen, "ended": ended,
	}))
	os.Exit(0)
}

func main() {
	log.SetLogger(logr.Discard())
	f := &follower{task: read(os.Args[1]), finals: map[int]bool{}, before: memory(), begun: time.Now(), used: processor()}
	f.restart()
	config, err := clientcmd.BuildConfigFromFlags("", f.config)
	check(err)
	manager, err := ctrl.NewManager(config, ctrl.Options{
		Cache:   cache.Options{DefaultNamespaces: map[string]cache.Config{namespace: {}}},
		Metrics: server.Options{BindAddress: "0"},
	})
	check(err)
	var kind client.Object = &corev1.Pod{}
	if f.plural != "pods" {
		kind = &corev1.ConfigMap{}
	}
	ctx := context.Background()
	if f.handles {
		reconciler := reconcile.Func(func(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
			found := kind.DeepCopyObject().(client.Object)
			if err := manager.GetClient().Get(ctx, request.NamespacedName, found); err != nil {
				return reconcile.Result{}, client.IgnoreNotFound(err)
			}
			f.object(found.GetAnnotations())
			return reconcile.Result{}, nil
		})
		check(ctrl.NewControllerManagedBy(manager).Named("bench").For(kind).Complete(reconciler))
		check(manager.Start(ctx))
	}
	informer, err := manager.GetCache().GetInformer(ctx, kind, cache.BlockUntilSynced(false))
	check(err)
	go func() { check(manager.Start(ctx)) }()
	for !informer.HasSynced() {
		time.Sleep(time.Millisecond)
	}
	f.mutex.Lock()
	f.first = f.objects
	f.cached()
}
