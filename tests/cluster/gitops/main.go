// What GitOps tools make of an object: kstatus and the CEL health checks of Flux by Flux's own packages, and the Lua
// health checks of Argo CD in the interpreter and with the libraries that Argo CD gives them.
//
// In, on stdin: {"lua": {NAME: SCRIPT}, "cel": {NAME: {"current", "failed", "inProgress"}}, "objects": [...]}.
// Out: for each object {"kstatus": STATUS, "lua": {NAME: {"status", "message"}}, "cel": {NAME: STATUS}}.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

var source string // set at build time, so that a change of this file makes another program

type question struct {
	Lua     map[string]string
	Cel     map[string]kustomize.HealthCheckExpressions
	Objects []unstructured.Unstructured
}

type health struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

type answer struct {
	Kstatus string            `json:"kstatus"`
	Lua     map[string]health `json:"lua"`
	Cel     map[string]string `json:"cel"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	var asked question
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		return err
	}
	answers := []answer{}
	for index := range asked.Objects {
		found, err := judge(asked, &asked.Objects[index])
		if err != nil {
			return fmt.Errorf("object %d: %w", index, err)
		}
		answers = append(answers, found)
	}
	return json.NewEncoder(os.Stdout).Encode(answers)
}

func judge(asked question, object *unstructured.Unstructured) (answer, error) {
	found := answer{Lua: map[string]health{}, Cel: map[string]string{}}
	result, err := status.Compute(object)
	if err != nil {
		return found, err
	}
	found.Kstatus = string(result.Status)
	for name, script := range asked.Lua {
		if found.Lua[name], err = runLua(script, object); err != nil {
			return found, fmt.Errorf("lua %s: %w", name, err)
		}
	}
	for name, expressions := range asked.Cel {
		evaluator, err := cel.NewStatusEvaluator(&expressions)
		if err != nil {
			return found, fmt.Errorf("cel %s: %w", name, err)
		}
		result, err := evaluator.Evaluate(context.Background(), object)
		if err != nil {
			return found, fmt.Errorf("cel %s: %w", name, err)
		}
		found.Cel[name] = string(result.Status)
	}
	return found, nil
}

// runLua gives a script the object as `obj` and the libraries that Argo CD opens by default. As in Argo CD, the script
// is not asked about an object that is being deleted.
func runLua(script string, object *unstructured.Unstructured) (health, error) {
	if object.GetDeletionTimestamp() != nil {
		return health{Status: "Progressing", Message: "Pending deletion"}, nil
	}
	machine := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer machine.Close()
	for name, open := range map[string]lua.LGFunction{
		lua.LoadLibName: lua.OpenPackage,
		lua.BaseLibName: lua.OpenBase,
		lua.TabLibName:  lua.OpenTable,
	} {
		if err := machine.CallByParam(
			lua.P{Fn: machine.NewFunction(open), NRet: 0, Protect: true}, lua.LString(name),
		); err != nil {
			return health{}, err
		}
	}
	machine.SetGlobal("obj", toLua(machine, object.Object))
	if err := machine.DoString(script); err != nil {
		return health{}, err
	}
	table, ok := machine.Get(-1).(*lua.LTable)
	if !ok {
		return health{}, fmt.Errorf("it returned %s, not a table", machine.Get(-1).Type())
	}
	message := ""
	if text, ok := table.RawGetString("message").(lua.LString); ok {
		message = string(text)
	}
	return health{Status: table.RawGetString("status").String(), Message: message}, nil
}

func toLua(machine *lua.LState, value any) lua.LValue {
	switch found := value.(type) {
	case string:
		return lua.LString(found)
	case bool:
		return lua.LBool(found)
	case int64:
		return lua.LNumber(found)
	case float64:
		return lua.LNumber(found)
	case []any:
		table := machine.CreateTable(len(found), 0)
		for _, item := range found {
			table.Append(toLua(machine, item))
		}
		return table
	case map[string]any:
		table := machine.CreateTable(0, len(found))
		for key, item := range found {
			table.RawSetString(key, toLua(machine, item))
		}
		return table
	}
	return lua.LNil
}
