// An early return with the lock held: every later request stands in line.
package main

import (
	"sync"
	"time"

	"oomwatch.example/leaks/rig"
)

// Told at run time in a real server: a buffer of a fixed size would live on the stack.
var requestBytes = 64 << 10

type account struct {
	lock    sync.Mutex
	balance int
}

func main() {
	var shared account
	rig.Run(10*time.Millisecond, func(leak bool) { go serve(&shared, leak) })
}

func serve(shared *account, overdrawn bool) {
	request := make([]byte, requestBytes)
	rig.Touch(request)
	shared.withdraw(1, overdrawn)
	request[0] = 0
}

func (a *account) withdraw(amount int, overdrawn bool) bool {
	a.lock.Lock()
	if overdrawn {
		return false
	}
	a.balance -= amount
	a.lock.Unlock()
	return true
}
