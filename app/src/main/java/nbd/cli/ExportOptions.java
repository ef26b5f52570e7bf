package nbd.cli;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.IOException;
import java.util.List;
import java.util.Optional;
import java.util.function.Predicate;
import nbd.protocol.ExportRequest;
import nbd.server.Export;
import nbd.storage.Backend;
import org.tinylog.Logger;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/**
 * The options that each export may have for itself. Given to serve, they are BACKEND's, and the
 * defaults of all other exports.
 */
final class ExportOptions {
  @Spec(Spec.Target.MIXEE)
  private CommandSpec command = CommandSpec.create();

  @Option(
      names = {"-D", "--description"},
      paramLabel = "TEXT",
      defaultValue = "",
      description = "Describe the export to clients.")
  private String description = "";

  @Option(
      names = {"-r", "--read-only"},
      description = "Refuse every writing command.")
  private boolean readOnly;

  @Mixin private MultiConnOptions multiConn = new MultiConnOptions();

  @Mixin private FilterOptions filters = new FilterOptions();

  @Mixin private UpstreamOptions upstream = new UpstreamOptions();

  @Mixin private FileOptions files = new FileOptions();

  @Mixin private RbdOptions rbd = new RbdOptions();

  @Mixin private ExperimentOptions experiments = new ExperimentOptions();

  /**
   * Checks the options.
   *
   * @param backends the arguments that name the storage that the options are for
   * @param isGiven whether the user gave an option, which then has to be of use to one of them
   * @throws UsageException if they are wrong
   */
  void check(List<String> backends, Predicate<String> isGiven) {
    boolean ownNames = backends.stream().anyMatch(this::hasOwnNames);
    filters.check(multiConn.mode(), experiments.threadModel(), ownNames, isGiven);
    if (backends.stream().noneMatch(BackendArgument::isFiles)) {
      refuse(FileOptions.class, isGiven, "only with files as BACKEND");
    }
    if (backends.stream().noneMatch(BackendArgument::isUpstream)) {
      refuse(UpstreamOptions.class, isGiven, "only with another NBD server as BACKEND");
    }
    if (backends.stream().noneMatch(BackendArgument::isCeph)) {
      refuse(RbdOptions.class, isGiven, "only with an image in a Ceph cluster as BACKEND");
    }
    upstream.check(isGiven);
    rbd.check();
    checkLength("--description", description);
  }

  /** Refuses the options of a mixin, which this class has. */
  private void refuse(Class<?> mixin, Predicate<String> isGiven, String reason) {
    CommandSpec found =
        command.mixins().values().stream()
            .flatMap(each -> each.mixins().values().stream())
            .filter(each -> mixin.isInstance(each.userObject()))
            .findFirst()
            .orElseThrow();
    UsageException.refuse(found.optionsMap().keySet(), isGiven, reason);
  }

  static void checkLength(String option, String text) {
    UsageException.refuseIf(
        text.getBytes(UTF_8).length > ExportRequest.MAXIMUM_NAME_BYTES,
        option
            + ": longer than "
            + ExportRequest.MAXIMUM_NAME_BYTES
            + " bytes, the most that NBD allows");
  }

  /** True if the storage has several exports, which it names itself. */
  boolean hasOwnNames(String backend) {
    return (upstream.dynamicExport() && BackendArgument.isUpstream(backend))
        || BackendArgument.isDirectory(backend)
        || BackendArgument.isPool(backend);
  }

  /** The memory that the cache takes, in bytes; 0 if there is none. */
  long cacheBytes() {
    return filters.cacheBytes();
  }

  /**
   * Opens the storage, and puts the filters in front of it.
   *
   * @param backend the argument that names the storage
   * @param report counts the requests, if somebody reads the counts
   * @param maxConnections the limit on the clients of the server; 0 for none
   * @throws UsageException if the argument names no storage
   * @throws IOException if the storage could not be opened; the message is for the user
   */
  FilterStack open(String backend, Optional<StatisticsReport> report, int maxConnections)
      throws IOException {
    filters.warn();
    Backend storage;
    try {
      storage = BackendArgument.open(backend, files.settings(readOnly), upstream, rbd.settings());
    } catch (UsageException wrong) {
      throw new UsageException("BACKEND: " + wrong.getMessage());
    }
    return new FilterStack(
        storage,
        new FilterStack.Choice(
            filters.fua(),
            multiConn.settings(maxConnections),
            filters.cache(),
            experiments::around,
            upstream::around,
            hasOwnNames(backend),
            report));
  }

  /**
   * Makes an export of storage that was opened. Warns if every client will be refused; but another
   * server may be down now and up when a client comes.
   *
   * @param names empty if the storage has names of its own
   * @param maxClients limit on the clients of this export at a time; 0 for none
   * @throws IOException if the storage cannot be asked
   */
  Export export(String backend, FilterStack stack, List<String> names, int maxClients)
      throws IOException {
    if (!BackendArgument.isUpstream(backend) && !hasOwnNames(backend)) {
      stack
          .refusal(names.getFirst(), readOnly)
          .ifPresent(reason -> Logger.warn("every client will be refused: {}", reason));
    }
    return new Export(
        stack.backend(),
        names,
        new Export.Settings(description, readOnly, maxClients, multiConn.words()));
  }
}
