/* Intrusive doubly linked list. */
#pragma once

#include "base/macros.h"

#include <stdbool.h>
#include <stddef.h>

/* The head, and the link embedded in each element. A link outside any list points at itself
 * (list_init) or is all zero. Owns nothing. Not thread-safe. */
struct list {
	struct list *next;
	struct list *prev;
};

static inline void list_init(struct list *l)
{
	l->next = l;
	l->prev = l;
}

/* True also for an all-zero link or head. */
static inline bool list_empty(const struct list *head)
{
	return head->next == head || head->next == NULL;
}

/* Is this element's link in a list? */
static inline bool list_linked(const struct list *l)
{
	return l->next != NULL && l->next != l;
}

static inline void list_insert_between_(struct list *l, struct list *prev, struct list *next)
{
	l->prev = prev;
	l->next = next;
	prev->next = l;
	next->prev = l;
}

/* At the front. */
static inline void list_push_front(struct list *head, struct list *l)
{
	list_insert_between_(l, head, head->next);
}

/* At the end. */
static inline void list_push(struct list *head, struct list *l)
{
	list_insert_between_(l, head->prev, head);
}

/* Before another element. */
static inline void list_insert_before(struct list *at, struct list *l)
{
	list_insert_between_(l, at->prev, at);
}

/* Out of its list; harmless if it is in none. */
static inline void list_remove(struct list *l)
{
	if (l->next != NULL) {
		l->next->prev = l->prev;
		l->prev->next = l->next;
	}
	list_init(l);
}

/* The first element's link, removed from the list; NULL if empty. */
static inline struct list *list_pop(struct list *head)
{
	struct list *l = head->next;

	if (list_empty(head)) {
		return NULL;
	}
	list_remove(l);
	return l;
}

static inline size_t list_len(const struct list *head)
{
	size_t n = 0;

	if (head->next == NULL) {
		return 0;
	}
	for (const struct list *l = head->next; l != head; l = l->next) {
		n++;
	}
	return n;
}

/* Moves all of src to the end of dst; src is empty afterwards. */
static inline void list_splice(struct list *dst, struct list *src)
{
	if (list_empty(src)) {
		return;
	}
	src->next->prev = dst->prev;
	dst->prev->next = src->next;
	src->prev->next = dst;
	dst->prev = src->prev;
	list_init(src);
}

#define LIST_ENTRY(ptr, type, member) container_of(ptr, type, member)

/* it is a struct list *. The head must be initialised. */
#define LIST_FOREACH(head, it) for (struct list *it = (head)->next; it != (head); it = it->next)
/* The current element may be removed. */
#define LIST_FOREACH_SAFE(head, it, tmp)                                    \
	for (struct list *it = (head)->next, *tmp = it->next; it != (head); \
	     it = tmp, tmp = it->next)
