#include "dns/view.h"

#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "base/name.h"

struct entry {
	char *fqdn; /* the name that PTR answers give */
	struct ipaddr *addresses;
	size_t n;
	struct entry *next; /* list of all, for freeing */
};

struct dns_view {
	atomic_uint refs;
	char *base;
	struct map names;   /* name -> entry */
	struct map reverse; /* 17 bytes of address -> entry */
	struct entry *entries;
	struct dns_route *routes; /* most labels first */
	size_t n_routes;
};

static void address_key(const struct ipaddr *a, uint8_t key[17])
{
	key[0] = a->family;
	memcpy(key + 1, a->b, 16);
}

static void entry_add_address(struct dns_view *v, struct entry *e, const struct ipaddr *a)
{
	uint8_t key[17];

	e->addresses = mem_realloc(e->addresses, (e->n + 1) * sizeof(*e->addresses));
	e->addresses[e->n++] = *a;
	address_key(a, key);
	if (!map_get(&v->reverse, key, sizeof(key)))
		map_put(&v->reverse, key, sizeof(key), e);
}

static struct entry *entry_new(struct dns_view *v, char *fqdn)
{
	struct entry *e = mem_zalloc(sizeof(*e));

	e->fqdn = fqdn;
	e->next = v->entries;
	v->entries = e;
	return e;
}

static int add_host(struct dns_view *v, const struct dns_host *h, struct err *err)
{
	struct entry *e;
	int rc = name_valid_label(h->label, strlen(h->label), err);

	if (rc < 0)
		return rc;
	if (map_get_str(&v->names, h->label))
		return 0;
	e = entry_new(v, *v->base ? mem_printf("%s.%s", h->label, v->base) : mem_strdup(h->label));
	for (size_t i = 0; i < h->n_addresses; i++)
		entry_add_address(v, e, &h->addresses[i]);
	map_put_str(&v->names, h->label, e);
	if (*v->base)
		map_put_str(&v->names, e->fqdn, e);
	return 0;
}

static int add_record(struct dns_view *v, const struct dns_record *r, struct err *err)
{
	char name[NAME_DOMAIN_MAX + 1];
	struct entry *e;
	int rc = name_normalise(r->name, name, err);

	if (rc < 0)
		return rc;
	e = map_get_str(&v->names, name);
	if (!e) {
		e = entry_new(v, mem_strdup(name));
		map_put_str(&v->names, name, e);
	}
	entry_add_address(v, e, &r->address);
	return 0;
}

/* Most labels first, so that the first match is the longest. */
static int route_order(const void *a, const void *b)
{
	size_t la = name_labels(((const struct dns_route *)a)->domain);
	size_t lb = name_labels(((const struct dns_route *)b)->domain);

	return la < lb ? 1 : la > lb ? -1 : 0;
}

static int add_route(struct dns_view *v, const struct dns_route *r, struct err *err)
{
	struct dns_route *own = &v->routes[v->n_routes];
	char name[NAME_DOMAIN_MAX + 1] = "";
	int rc = *r->domain ? name_normalise(r->domain, name, err) : 0;

	if (rc < 0)
		return rc;
	if (r->n_resolvers > DNS_RESOLVERS_MAX)
		return err_set(err, ERR_LIMIT, "%zu resolvers for \"%s\": at most %d are used",
			       r->n_resolvers, r->domain, DNS_RESOLVERS_MAX);
	own->domain = mem_strdup(name);
	own->resolvers = mem_memdup(r->resolvers, r->n_resolvers * sizeof(*r->resolvers));
	own->n_resolvers = r->n_resolvers;
	v->n_routes++;
	return 0;
}

int dns_view_new(const struct dns_zone *zone, struct dns_view **ret_view, struct err *err)
{
	struct dns_view *v = mem_zalloc(sizeof(*v));
	char base[NAME_DOMAIN_MAX + 1] = "";
	int rc = 0;

	atomic_init(&v->refs, 1);
	if (zone->base_domain && *zone->base_domain)
		rc = name_normalise(zone->base_domain, base, err);
	v->base = mem_strdup(base);
	v->routes = mem_calloc(zone->n_routes + 1, sizeof(*v->routes));
	for (size_t i = 0; rc >= 0 && i < zone->n_hosts; i++)
		rc = add_host(v, &zone->hosts[i], err);
	for (size_t i = 0; rc >= 0 && i < zone->n_records; i++)
		rc = add_record(v, &zone->records[i], err);
	for (size_t i = 0; rc >= 0 && i < zone->n_routes; i++)
		rc = add_route(v, &zone->routes[i], err);
	if (rc < 0) {
		dns_view_unref(v);
		return rc;
	}
	qsort(v->routes, v->n_routes, sizeof(*v->routes), route_order);
	*ret_view = v;
	return 0;
}

struct dns_view *dns_view_ref(struct dns_view *view)
{
	atomic_fetch_add_explicit(&view->refs, 1, memory_order_relaxed);
	return view;
}

void dns_view_unref(struct dns_view *view)
{
	struct entry *e;

	if (!view || atomic_fetch_sub_explicit(&view->refs, 1, memory_order_acq_rel) != 1)
		return;
	map_done(&view->names);
	map_done(&view->reverse);
	while ((e = view->entries)) {
		view->entries = e->next;
		mem_free(e->fqdn);
		mem_free(e->addresses);
		mem_free(e);
	}
	for (size_t i = 0; i < view->n_routes; i++) {
		mem_free((void *)(uintptr_t)view->routes[i].domain);
		mem_free((void *)(uintptr_t)view->routes[i].resolvers);
	}
	mem_free(view->routes);
	mem_free(view->base);
	mem_free(view);
}

bool dns_view_find(const struct dns_view *view, const char *name,
		   const struct ipaddr **ret_addresses, size_t *ret_n)
{
	const struct entry *e = map_get_str(&view->names, name);

	if (!e)
		return false;
	*ret_addresses = e->addresses;
	*ret_n = e->n;
	return true;
}

const char *dns_view_reverse(const struct dns_view *view, const struct ipaddr *address)
{
	uint8_t key[17];
	const struct entry *e;

	address_key(address, key);
	e = map_get(&view->reverse, key, sizeof(key));
	return e ? e->fqdn : NULL;
}

const char *dns_view_zone(const struct dns_view *view, const char *name)
{
	static const char ula[] = "0.e.1.a.c.5.1.1.a.7.d.f.ip6.arpa";
	/* 64.100.in-addr.arpa to 127.100.in-addr.arpa, cut at the label of the second byte. */
	static const char cgnat[] = ".100.in-addr.arpa";
	size_t n = strlen(name);
	const char *end;
	const char *p;
	long v;

	if (*view->base && name_within(name, view->base))
		return view->base;
	if (name_within(name, ula))
		return ula;
	if (n <= strlen(cgnat))
		return NULL;
	end = name + n - strlen(cgnat);
	if (strcmp(end, cgnat) != 0)
		return NULL;
	for (p = end; p > name && p[-1] != '.'; p--)
		;
	if (end - p < 2 || end - p > 3)
		return NULL;
	v = strtol(p, NULL, 10);
	return v >= 64 && v <= 127 ? p : NULL;
}

const struct dns_route *dns_view_route(const struct dns_view *view, const char *name)
{
	for (size_t i = 0; i < view->n_routes; i++) {
		if (name_within(name, view->routes[i].domain))
			return &view->routes[i];
	}
	return NULL;
}
