/* One verb of the command is one file here, `cli_VERB` in `VERB.c`, and one row in main.c's table.
 * argv[0] is the verb. Returns the exit status. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

enum cli_exit { CLI_DONE = 0, CLI_COULD_NOT = 1, CLI_USAGE = 2 };

int cli_config(int argc, char **argv);
int cli_demo(int argc, char **argv);
int cli_export(int argc, char **argv);
int cli_import(int argc, char **argv);
int cli_load(int argc, char **argv);
int cli_query(int argc, char **argv);
int cli_run(int argc, char **argv);
int cli_serve(int argc, char **argv);
int cli_store(int argc, char **argv);
int cli_tail(int argc, char **argv);
int cli_trace(int argc, char **argv);

#endif
