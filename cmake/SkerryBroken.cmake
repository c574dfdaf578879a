# Builds that are broken on purpose: each switch takes one guard away, and tests/chaos/catches.sh requires that the checker of
# histories sees it. They are for tests alone: such a build cannot be installed, says what it lacks when it starts, and
# test_not_broken finds the words SKERRY_BREAK in a program that is not meant to hold them.
set(SKERRY_BROKEN "")
# skerry_breakable(SWITCH FOLDER FILE TEXT)
function(skerry_breakable switch folder file text)
	option(${switch} "${text} (for tests alone)" OFF)
	if(NOT ${switch})
		return()
	endif()
	set_source_files_properties("${CMAKE_SOURCE_DIR}/${folder}/${file}" TARGET_DIRECTORY skerry_${folder}
		PROPERTIES COMPILE_DEFINITIONS ${switch})
	set(SKERRY_BROKEN "${SKERRY_BROKEN} ${switch}" PARENT_SCOPE)
endfunction()

skerry_breakable(SKERRY_BREAK_DURABLE_ACK cluster consensus_group.c "Acknowledges writes before they are in the log")
skerry_breakable(SKERRY_BREAK_READ cluster read.c "Answers leader-level reads without asking a majority")
skerry_breakable(SKERRY_BREAK_REQUEST_ID tailnet apply.c "Carries out a repeated request again")

if(SKERRY_BROKEN)
	if(NOT CMAKE_BINARY_DIR MATCHES "/broken-[^/]*$")
		message(FATAL_ERROR "${SKERRY_BROKEN}: only in a build directory named broken-*")
	endif()
	set_source_files_properties("${CMAKE_SOURCE_DIR}/lighthouse/run.c" TARGET_DIRECTORY skerry_lighthouse
		PROPERTIES COMPILE_DEFINITIONS "SKERRY_BROKEN=\"${SKERRY_BROKEN}\"")
	install(CODE "message(FATAL_ERROR \"this build is broken on purpose:${SKERRY_BROKEN}\")")
endif()
