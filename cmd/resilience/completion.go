package main

import (
	"flag"
	"fmt"
	"strings"
)

// completion is the command completion.
func (p *program) completion(args []string) error {
	shells, err := parse(p.flags("completion", "bash|zsh|fish"), args)
	if err != nil {
		return err
	}
	if len(shells) != 1 {
		return misuse("completion: %d shells, must be bash, zsh, or fish", len(shells))
	}
	incidents := strings.Join(incidentNames(), " ")
	switch shells[0] {
	case "zsh":
		fmt.Fprintln(p.out, "autoload -U +X bashcompinit && bashcompinit")
		fallthrough
	case "bash":
		flags := func(command string) string { return strings.Join(flagsOf[command](), " ") }
		fmt.Fprintf(p.out, bashScript, commandNames, incidents, flags("check"), flags("simulate"), flags("tune"))
	case "fish":
		p.completeFish(incidents)
	default:
		return misuse("completion: %q, must be bash, zsh, or fish", shells[0])
	}
	return nil
}

const commandNames = "check schema simulate tune completion help"

const bashScript = `_resilience() {
	local word=${COMP_WORDS[COMP_CWORD]} last=${COMP_WORDS[COMP_CWORD-1]}
	COMPREPLY=()
	if ((COMP_CWORD == 1)); then
		COMPREPLY=($(compgen -W "%s" -- "$word"))
	elif [[ $last == -incident ]]; then
		COMPREPLY=($(compgen -W "%s" -- "$word"))
	elif [[ $word == -* ]]; then
		case ${COMP_WORDS[1]} in
		check) COMPREPLY=($(compgen -W "%s" -- "$word")) ;;
		simulate) COMPREPLY=($(compgen -W "%s" -- "$word")) ;;
		tune) COMPREPLY=($(compgen -W "%s" -- "$word")) ;;
		esac
	elif [[ ${COMP_WORDS[1]} == completion ]]; then
		COMPREPLY=($(compgen -W "bash zsh fish" -- "$word"))
	else
		COMPREPLY=($(compgen -f -- "$word"))
	fi
}
complete -o filenames -F _resilience resilience
`

func (p *program) completeFish(incidents string) {
	fmt.Fprintf(p.out, "complete -c resilience -n __fish_use_subcommand -f -a '%s'\n", commandNames)
	for _, command := range []string{"check", "simulate", "tune"} {
		for _, name := range flagsOf[command]() {
			extra := ""
			if name == "-incident" {
				extra = " -x -a '" + incidents + "'"
			}
			fmt.Fprintf(p.out, "complete -c resilience -n '__fish_seen_subcommand_from %s' -o %s%s\n", command, name[1:], extra)
		}
	}
	fmt.Fprintln(p.out, "complete -c resilience -n '__fish_seen_subcommand_from completion' -f -a 'bash zsh fish'")
}

// flagsOf are the flags of the commands that have some, such as -rate.
var flagsOf = map[string]func() []string{
	"check":    func() []string { return []string{"-effective"} },
	"simulate": func() []string { return flagNames(new(simulation).add) },
	"tune":     func() []string { return flagNames(new(tuning).add) },
}

func flagNames(add func(set *flag.FlagSet)) (names []string) {
	set := flag.NewFlagSet("", flag.ContinueOnError)
	add(set)
	set.VisitAll(func(f *flag.Flag) { names = append(names, "-"+f.Name) })
	return names
}
