package main

import (
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

func TestJudge(t *testing.T) {
	create := &call{Op: "create", Start: 1, End: 2, Result: "ok", Value: "a"}
	read := func(start, end int64, value string) *call {
		return &call{Op: "read", Start: start, End: end, Result: "ok", Value: value}
	}
	use := func(device, result string, start, end int64) *call {
		return &call{Op: "use", Device: device, Start: start, End: end, Result: result}
	}
	cases := []struct {
		name  string
		legal bool
		calls []*call
	}{
		{"read what was created", true, []*call{create, read(3, 4, "a")}},
		{"acknowledged and gone", false, []*call{create, read(3, 4, "")}},
		{"a stale read", false, []*call{create, {Op: "write", Start: 3, End: 4, Result: "ok", Value: "b"}, read(5, 6, "a")}},
		{"a read beside the write", true, []*call{create, {Op: "write", Start: 3, End: 8, Result: "ok", Value: "b"},
			read(4, 5, "b"), read(6, 7, "b")}},
		{"seen and gone", false, []*call{create, {Op: "write", Start: 3, End: 9, Result: "ok", Value: "b"},
			read(4, 5, "b"), read(6, 7, "a")}},
		{"an open write that came late", true, []*call{create, {Op: "write", Start: 3, Result: "open", Value: "b"},
			read(5, 6, "a"), read(7, 8, "b")}},
		{"an open write that never came", true, []*call{create, {Op: "write", Start: 3, Result: "open", Value: "b"},
			read(5, 6, "a")}},
		{"refused, but carried out", false, []*call{create,
			{Op: "cas", Start: 3, End: 4, Result: "refused", Expect: "a", Value: "b"}, read(5, 6, "b")}},
		{"two winners of one etag", false, []*call{create,
			{Op: "cas", Start: 3, End: 4, Result: "ok", Expect: "a", Value: "b"},
			{Op: "cas", Start: 3, End: 4, Result: "ok", Expect: "a", Value: "c"}}},
		{"a repeat that was applied twice", false, []*call{create,
			{Op: "write", Start: 3, End: 20, Result: "ok", Value: "b"}, read(5, 6, "b"),
			{Op: "write", Start: 7, End: 8, Result: "ok", Value: "c"}, read(9, 10, "b")}},
		{"one winner of a key", true, []*call{use("x", "ok", 1, 5), use("y", "refused", 1, 6), use("z", "open", 1, 0)}},
		{"two winners of a key", false, []*call{use("x", "ok", 1, 5), use("y", "ok", 1, 6)}},
		{"no winner of a key", false, []*call{use("x", "refused", 1, 5), use("y", "refused", 1, 6)}},
		{"the winner was cut off", true, []*call{use("x", "open", 1, 0), use("y", "refused", 1, 6)}},
	}
	for _, c := range cases {
		legal := judge(c.calls, time.Minute) == porcupine.Ok
		if legal != c.legal {
			t.Errorf("%s: linearizable %v", c.name, legal)
		}
	}
}

func TestShortest(t *testing.T) {
	calls := []*call{{Op: "create", Start: 1, End: 2, Result: "ok", Value: "v0"}}
	at := int64(10)
	for i := 1; i < 100; i++ {
		value := string(rune('A'+i/10)) + string(rune('0'+i%10))
		calls = append(calls, &call{Op: "write", Start: at, End: at + 1, Result: "ok", Value: value},
			&call{Op: "read", Start: at + 2, End: at + 3, Result: "ok", Value: value})
		at += 10
	}
	calls = append(calls, &call{Op: "read", Start: at, End: at + 1, Result: "ok", Value: "J8"})
	if judge(calls, time.Minute) != porcupine.Illegal {
		t.Fatal("a stale read passed")
	}
	if n := len(shortest(calls, time.Minute)); n > 4 {
		t.Errorf("%d calls are left of a conflict of at most four", n)
	}
}
