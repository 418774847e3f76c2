// Package cache is the app's own: generic, with methods and an inlined helper.
package cache

type Cache[V any] struct{ items [][]V }

func (c *Cache[V]) Put(n int) { c.items = append(c.items, Fill[V](n)) }

func (c *Cache[V]) Drop() { c.items = nil }

//go:noinline
func Fill[V any](n int) []V { return room[V](n) }

// room is inlined into Fill.
func room[V any](n int) []V { return make([]V, n) }
