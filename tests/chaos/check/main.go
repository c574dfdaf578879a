// Command check decides whether the history of a chaos run is linearizable, object by object.
//
//	check [-seconds N] [-html DIR] FILE
//
// FILE has a JSON object per line; docs/testing.md describes it. Exit status: 0 every object is linearizable, 1 one is
// not (its shortest conflicting history is printed), 2 the file cannot be read, 3 some object could not be decided in time.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

type call struct {
	Object string `json:"object"`
	Op     string `json:"op"`
	Client int    `json:"client"`
	Device string `json:"device"`
	Start  int64  `json:"start"`
	End    int64  `json:"end"`
	Result string `json:"result"`
	Value  string `json:"value"`
	Expect string `json:"expect"`
	Etag   string `json:"etag"`
	Used   int    `json:"used"`
	Error  string `json:"error"`
}

const forever = int64(1) << 62

// write: the state after a call that sets value where `may` holds. An open call took place or did not: one that did not
// is put behind everything else, where nobody sees what it did.
func write(c *call, state string, may bool, value string) (bool, string) {
	switch c.Result {
	case "ok":
		return may, value
	case "refused":
		return !may, state
	}
	if may {
		return true, value
	}
	return true, state
}

// The state of a register is its value, "" while it does not exist; of a key the device that used it, "" while none did.
func step(state string, c *call) (bool, string) {
	switch c.Op {
	case "create":
		return write(c, state, state == "", c.Value)
	case "cas":
		return write(c, state, state == c.Expect, c.Value)
	case "write":
		return write(c, state, state != "", c.Value)
	case "use":
		return write(c, state, state == "" || state == c.Device, c.Device)
	case "read":
		return state == c.Value, state
	case "look":
		return (state != "") == (c.Used > 0), state
	}
	return false, state
}

func (c *call) String() string {
	who := fmt.Sprintf("client %d", c.Client)
	switch {
	case c.Device != "":
		who = "device " + c.Device
	case c.Client < 0 || c.Op == "look":
		who = "a reader"
	}
	what := c.Op
	switch c.Op {
	case "create", "write":
		what += "(" + c.Value + ")"
	case "cas":
		what += "(" + c.Expect + " -> " + c.Value + ")"
	}
	result := c.Result
	switch c.Op {
	case "read":
		if result = "nothing"; c.Value != "" {
			result = c.Value
		}
	case "look":
		result = fmt.Sprintf("used %d times", c.Used)
	}
	return fmt.Sprintf("%-12s %s: %s", who, what, result)
}

var model = porcupine.Model{
	Init: func() interface{} { return "" },
	Step: func(state, input, output interface{}) (bool, interface{}) {
		ok, next := step(state.(string), input.(*call))
		return ok, next
	},
	DescribeOperation: func(input, output interface{}) string { return input.(*call).String() },
	DescribeState:     func(state interface{}) string { return fmt.Sprintf("%q", state) },
}

func operations(calls []*call) []porcupine.Operation {
	ops := make([]porcupine.Operation, 0, len(calls))
	for i, c := range calls {
		end := c.End
		if c.Result == "open" {
			end = forever
		}
		ops = append(ops, porcupine.Operation{ClientId: i, Input: c, Call: c.Start, Output: nil, Return: end})
	}
	return ops
}

func judge(calls []*call, limit time.Duration) porcupine.CheckResult {
	return porcupine.CheckOperationsTimeout(model, operations(calls), limit)
}

// until: what was known at a time: later calls are left out, those under way are open, reads under way unanswered.
func until(calls []*call, at int64) []*call {
	var out []*call
	for _, c := range calls {
		switch {
		case c.Start > at:
		case c.Result == "open" || c.End <= at:
			out = append(out, c)
		case c.Op != "read" && c.Op != "look":
			open := *c
			open.Result, open.End = "open", 0
			out = append(out, &open)
		}
	}
	return out
}

// needed: whether others would contradict each other without c: what a call wrote may have been seen, or be why one was
// refused.
func needed(c *call, calls []*call) bool {
	if c.Result == "refused" || c.Op == "read" || c.Op == "look" {
		return false
	}
	if c.Op == "create" || c.Op == "use" {
		return true
	}
	for _, o := range calls {
		if o != c && (o.Result == "refused" || o.Expect == c.Value || (o.Op == "read" && o.Value == c.Value)) {
			return true
		}
	}
	return false
}

// shortest: the conflict with what is not needed for it left out.
func shortest(calls []*call, limit time.Duration) []*call {
	var ends []int64
	for _, c := range calls {
		if c.Result != "open" {
			ends = append(ends, c.End)
		}
	}
	sort.Slice(ends, func(i, j int) bool { return ends[i] < ends[j] })
	first := sort.Search(len(ends)-1, func(i int) bool { return judge(until(calls, ends[i]), limit) == porcupine.Illegal })
	calls = until(calls, ends[first])
	for again := true; again; { // until nothing more can go
		again = false
		for i := 0; i < len(calls); i++ {
			if needed(calls[i], calls) {
				continue
			}
			fewer := append(append([]*call{}, calls[:i]...), calls[i+1:]...)
			if judge(fewer, limit) == porcupine.Illegal {
				calls, again = fewer, true
				i--
			}
		}
	}
	return calls
}

func show(calls []*call) {
	sort.Slice(calls, func(i, j int) bool { return calls[i].Start < calls[j].Start })
	begun := calls[0].Start
	for i, c := range calls {
		if i == 60 {
			fmt.Printf("    ... and %d more\n", len(calls)-i)
			return
		}
		end := "         ..."
		if c.Result != "open" {
			end = fmt.Sprintf("%12.3f", float64(c.End-begun)/1e6)
		}
		fmt.Printf("    %12.3f %s ms  %s\n", float64(c.Start-begun)/1e6, end, c)
	}
}

// strange: what is wrong whatever the order: a refusal that nobody expects, one etag for two values or the reverse.
func strange(calls []*call) string {
	etags, values := map[string]string{}, map[string]string{}
	for _, c := range calls {
		if c.Result == "error" {
			return "unexpected refusal: " + c.String() + ": " + c.Error
		}
		if c.Op != "read" || c.Etag == "" {
			continue
		}
		if v, ok := values[c.Etag]; ok && v != c.Value {
			return fmt.Sprintf("etag %s was of %s and of %s", c.Etag, v, c.Value)
		}
		if e, ok := etags[c.Value]; ok && e != c.Etag {
			return fmt.Sprintf("value %s had etags %s and %s", c.Value, e, c.Etag)
		}
		values[c.Etag], etags[c.Value] = c.Value, c.Etag
	}
	return ""
}

func load(path string) (map[string][]*call, int, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer file.Close()
	objects, total := map[string][]*call{}, 0
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		c := &call{}
		if err := json.Unmarshal(lines.Bytes(), c); err != nil {
			return nil, 0, fmt.Errorf("%s:%d: %w", path, total+1, err)
		}
		total++
		if c.Object == "" || c.Start == 0 || (c.Result != "open" && c.End < c.Start) {
			return nil, 0, fmt.Errorf("%s:%d: no object, or it ends before it begins", path, total)
		}
		switch c.Op {
		case "create", "cas", "write", "use", "read", "look":
		default:
			return nil, 0, fmt.Errorf("%s:%d: unknown op %q", path, total, c.Op)
		}
		switch c.Result {
		case "ok", "refused", "open", "error":
		default:
			return nil, 0, fmt.Errorf("%s:%d: unknown result %q", path, total, c.Result)
		}
		// An answer to a read that never came says nothing.
		if c.Result == "open" && (c.Op == "read" || c.Op == "look") {
			continue
		}
		objects[c.Object] = append(objects[c.Object], c)
	}
	return objects, total, lines.Err()
}

func draw(dir, name string, calls []*call, limit time.Duration) {
	if dir == "" {
		return
	}
	result, info := porcupine.CheckOperationsVerbose(model, operations(calls), limit)
	path := filepath.Join(dir, strings.ReplaceAll(name, "/", "_")+".html")
	if result == porcupine.Illegal && porcupine.VisualizePath(model, info, path) == nil {
		fmt.Printf("    drawn in %s\n", path)
	}
}

func main() {
	seconds := flag.Int("seconds", 60, "time for one object")
	html := flag.String("html", "", "directory for drawings of what is not linearizable")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: check [-seconds N] [-html DIR] FILE")
		os.Exit(2)
	}
	limit := time.Duration(*seconds) * time.Second
	objects, total, err := load(flag.Arg(0))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	names := make([]string, 0, len(objects))
	longest, open := 0, 0
	for name, calls := range objects {
		names = append(names, name)
		longest = max(longest, len(calls))
		for _, c := range calls {
			if c.Result == "open" {
				open++
			}
		}
	}
	sort.Strings(names)

	var lock sync.Mutex
	var wait sync.WaitGroup
	bad, late := []string{}, []string{}
	places := make(chan bool, runtime.GOMAXPROCS(0))
	for _, name := range names {
		wait.Add(1)
		places <- true
		go func(name string) {
			defer func() { <-places; wait.Done() }()
			result := judge(objects[name], limit)
			lock.Lock()
			defer lock.Unlock()
			if result == porcupine.Illegal || strange(objects[name]) != "" {
				bad = append(bad, name)
			} else if result == porcupine.Unknown {
				late = append(late, name)
			}
		}(name)
	}
	wait.Wait()

	fmt.Printf("%d calls, %d of them open, %d objects, the longest history %d calls\n", total, open, len(names), longest)
	sort.Strings(bad)
	for i, name := range bad {
		calls := objects[name]
		if i >= 5 {
			fmt.Printf("... and %d more objects\n", len(bad)-i)
			break
		}
		if why := strange(calls); why != "" {
			fmt.Printf("%s: %s\n", name, why)
		}
		if judge(calls, limit) != porcupine.Illegal {
			continue
		}
		conflict := shortest(calls, limit)
		fmt.Printf("%s is not linearizable: %d of its %d calls contradict each other\n", name, len(conflict), len(calls))
		show(conflict)
		draw(*html, name, calls, limit)
	}
	for _, name := range late {
		fmt.Printf("%s: not decided in %d s (%d calls)\n", name, *seconds, len(objects[name]))
	}
	switch {
	case len(bad) > 0:
		fmt.Printf("NOT linearizable: %d of %d objects\n", len(bad), len(names))
		os.Exit(1)
	case len(late) > 0:
		fmt.Println("undecided")
		os.Exit(3)
	case len(names) == 0:
		fmt.Println("an empty history")
		os.Exit(2)
	}
	fmt.Println("linearizable")
}
