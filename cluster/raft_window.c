/* How much is sent to one peer that does not answer; raft_window.h says why. */
#include "cluster/raft_window.h"

#include "base/mem.h"

bool send_window_pass(struct send_window *w, raft_term term, raft_index prev, unsigned n,
		      uint64_t now_ms, unsigned heartbeat_ms)
{
	bool due, again = n > 0 && prev < w->sent, lively;

	if (w->term != term) {
		w->term = term;
		w->sent = 0;
		w->unanswered = 0;
		w->heard_ms = 0;
		w->asked_ms = 0;
	}
	due = w->unanswered == 0 || now_ms >= w->passed_ms + heartbeat_ms;
	lively = w->heard_ms != 0 && now_ms < w->heard_ms + heartbeat_ms &&
		 w->unanswered < WINDOW_AGAIN;
	if (!due && ((again && !lively) || w->unanswered >= WINDOW_MESSAGES)) {
		return false;
	}
	w->unanswered++;
	w->passed_ms = now_ms;
	w->sent = MAX(w->sent, prev + n);
	return true;
}

void send_window_answer(struct send_window *w, uint64_t now_ms)
{
	w->unanswered = 0;
	w->heard_ms = now_ms;
}
