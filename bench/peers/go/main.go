// The process of docker/go-events in the race: it runs a round when the harness asks
// for one. The protocol is that of bench/peers/worker.py: lines of JSON.
//
// Sinks count, without a lock, which is all that NullSink does, too: each of them is
// written to by one goroutine. Only fan_direct is go-events' own BenchmarkBroadcastN, with
// its own sinks, in the test binary that is named on the command line.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"sort"
	"strconv"
	"sync"
	"time"

	events "github.com/docker/go-events"
)

const (
	event   = "myevent"
	writers = 4
	pause   = time.Millisecond // between two hand-overs: the queue is idle by then
)

type request struct {
	Do      string  `json:"do"`
	Name    string  `json:"name"`
	Load    string  `json:"load"`
	Options options `json:"options"`
	Events  int     `json:"events"`
}

type options struct {
	Sinks   int  `json:"sinks"`
	Writers int  `json:"writers"`
	Queues  bool `json:"queues"`
}

type answer struct {
	Values []float64 `json:"values"`
	Error  string    `json:"error,omitempty"`
}

// A round takes a number of events and returns nanoseconds for each.
type round func(n int) ([]float64, error)

func main() {
	loads := map[string]round{}
	in := bufio.NewScanner(os.Stdin)
	out := json.NewEncoder(os.Stdout)
	for in.Scan() {
		values, err := reply(loads, in.Bytes())
		a := answer{Values: values}
		if err != nil {
			a.Error = err.Error()
		}
		if err := out.Encode(a); err != nil {
			return // the harness is gone
		}
	}
}

func reply(loads map[string]round, line []byte) ([]float64, error) {
	var r request
	if err := json.Unmarshal(line, &r); err != nil {
		return nil, err
	}
	switch r.Do {
	case "open":
		load, err := open(r.Load, r.Options)
		loads[r.Name] = load
		return nil, err
	case "round":
		runtime.GC()
		return loads[r.Name](r.Events)
	case "close":
		delete(loads, r.Name)
		return nil, nil
	}
	return nil, fmt.Errorf("what is %q?", r.Do)
}

func open(load string, o options) (round, error) {
	switch {
	case load == "write":
		return write, nil
	case load == "queue":
		return queue(max(o.Writers, 1)), nil
	case load == "latency":
		return latency, nil
	case load == "broadcast" && o.Queues:
		return broadcast(o.Sinks), nil
	case load == "broadcast":
		return ownBenchmark(o.Sinks), nil
	}
	return nil, fmt.Errorf("there is no load %q", load)
}

func max(a, b int) int {
	if a > b {
		return a
	}
	return b
}

// counter is a sink that counts, and says so when all are there.
type counter struct {
	left int
	done *sync.WaitGroup
}

func (c *counter) Write(events.Event) error {
	c.left--
	if c.left == 0 {
		c.done.Done()
	}
	return nil
}

func (c *counter) Close() error { return nil }

func since(start time.Time, n int) []float64 {
	return []float64{float64(time.Since(start).Nanoseconds()) / float64(n)}
}

// write is Queue.Write while the queue's sink is stuck.
func write(n int) ([]float64, error) {
	g := &gate{reached: make(chan struct{}), opened: make(chan struct{})}
	q := events.NewQueue(g)
	if err := q.Write(event); err != nil {
		return nil, err
	}
	<-g.reached
	start := time.Now()
	for i := 0; i < n; i++ {
		if err := q.Write(event); err != nil {
			return nil, err
		}
	}
	values := since(start, n)
	close(g.opened)
	return values, q.Close()
}

// gate lets nothing pass until it is opened, and says when the first has come.
type gate struct {
	once            sync.Once
	reached, opened chan struct{}
}

func (g *gate) Write(events.Event) error {
	g.once.Do(func() { close(g.reached) })
	<-g.opened
	return nil
}

func (g *gate) Close() error { return nil }

// queue is writers, a queue and its sink, until the last event has arrived.
func queue(writers int) round {
	return func(n int) ([]float64, error) {
		var done, ready, ended sync.WaitGroup
		done.Add(1)
		q := events.NewQueue(&counter{left: n / writers * writers, done: &done})
		begin := make(chan struct{})
		errs := make([]error, writers)
		write := func(w int) {
			for i := 0; i < n/writers && errs[w] == nil; i++ {
				errs[w] = q.Write(event)
			}
		}
		var start time.Time
		if writers == 1 {
			start = time.Now()
			write(0)
		} else {
			for w := 0; w < writers; w++ {
				ready.Add(1)
				ended.Add(1)
				go func(w int) {
					defer ended.Done()
					ready.Done()
					<-begin
					write(w)
				}(w)
			}
			ready.Wait()
			start = time.Now()
			close(begin)
			ended.Wait()
		}
		for _, err := range errs {
			if err != nil {
				return nil, err
			}
		}
		done.Wait()
		values := since(start, n/writers*writers)
		return values, q.Close()
	}
}

// broadcast is a broadcaster, queues and their sinks, until the last event has arrived
// everywhere: nanoseconds for an event at a sink.
func broadcast(sinks int) round {
	var done sync.WaitGroup
	counters := make([]counter, sinks)
	queues := make([]events.Sink, sinks)
	for i := range counters {
		counters[i].done = &done
		queues[i] = events.NewQueue(&counters[i])
	}
	b := events.NewBroadcaster(queues...)
	return func(n int) ([]float64, error) {
		done.Add(sinks)
		for i := range counters {
			counters[i].left = n
		}
		start := time.Now()
		for i := 0; i < n; i++ {
			if err := b.Write(event); err != nil {
				return nil, err
			}
		}
		done.Wait()
		return since(start, n*sinks), nil
	}
}

// stamps notes how long ago an event was written, which is a time.
type stamps struct {
	lags []time.Duration
	done sync.WaitGroup
}

func (s *stamps) Write(e events.Event) error {
	s.lags = append(s.lags, time.Since(e.(time.Time)))
	s.done.Done()
	return nil
}

func (s *stamps) Close() error { return nil }

// latency is the time from a write into an idle queue to its sink: p50 and p99.
func latency(n int) ([]float64, error) {
	s := &stamps{lags: make([]time.Duration, 0, n)}
	s.done.Add(n)
	q := events.NewQueue(s)
	for i := 0; i < n; i++ {
		time.Sleep(pause)
		if err := q.Write(time.Now()); err != nil {
			return nil, err
		}
	}
	s.done.Wait()
	sort.Slice(s.lags, func(i, j int) bool { return s.lags[i] < s.lags[j] })
	rank := func(percent int) float64 {
		return float64(s.lags[max(0, (n*percent+99)/100-1)].Nanoseconds())
	}
	return []float64{rank(50), rank(99)}, q.Close()
}

var result = regexp.MustCompile(`(?m)^BenchmarkBroadcast\d+\S*\s+\d+\s+([0-9.]+) ns/op`)

// ownBenchmark is go-events' own BenchmarkBroadcastN.
func ownBenchmark(sinks int) round {
	return func(n int) ([]float64, error) {
		out, err := exec.Command(
			os.Args[1],
			"-test.run=^$",
			fmt.Sprintf("-test.bench=^BenchmarkBroadcast%d$", sinks),
			fmt.Sprintf("-test.benchtime=%dx", n),
		).CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("%v: %s", err, out)
		}
		found := result.FindSubmatch(out)
		if found == nil {
			return nil, fmt.Errorf("no result in %q", out)
		}
		perEvent, err := strconv.ParseFloat(string(found[1]), 64)
		return []float64{perEvent / float64(sinks)}, err
	}
}
