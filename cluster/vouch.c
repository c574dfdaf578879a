/* Does a leader that is not heard still lead? vouch.h says what for. */
#include "cluster/vouch.h"

#include "base/macros.h"

static bool within(uint64_t then_ms, uint64_t now_ms, uint64_t ms)
{
	return then_ms != 0 && now_ms < then_ms + ms;
}

bool vouch_holds(const struct vouch_voter *v, size_t n, uint64_t now_ms, unsigned election_ms)
{
	uint64_t longest = (uint64_t)VOUCH_ELECTION_TIMEOUTS * election_ms;
	size_t there = 1, served = 1, majority = (n + 1) / 2 + 1;

	for (size_t i = 0; i < n; i++) {
		there += within(MAX(v[i].acked_ms, v[i].asked_ms), now_ms, election_ms);
		served += within(v[i].acked_ms, now_ms, longest);
	}
	return there >= majority && served >= majority;
}
